//! Which tensor goes into which format: llama.cpp's mixtures.

use gemma_kernels::Format;

use super::QuantType;
use crate::checkpoint::names;

/// Whether it is a matrix that a product reads: everything else stays in plain numbers.
pub(super) fn is_matrix(name: &str, shape: &[usize]) -> bool {
    shape.len() == 2
        && name.ends_with(".weight")
        && !name.contains("_norm.")
        && !name.contains("position_embedding")
}

/// Whether numbers of this format stand in blocks.
pub(super) fn is_quantised(format: Format) -> bool {
    format.block_len() > 1
}

/// Bits of a number, scales counted in.
pub(super) fn bits(format: Format) -> f64 {
    8.0 * format.block_bytes() as f64 / format.block_len() as f64
}

/// The format of a tensor of `layers` layers, by its GGUF name. `attention` tells of a layer which one of the attention
/// layers it is, and of how many. `tied`: the embedding table is the output table too.
pub(super) fn format(
    kind: QuantType,
    name: &str,
    shape: &[usize],
    from: Format,
    layers: usize,
    attention: impl Fn(usize) -> (usize, usize),
    tied: bool,
) -> Format {
    if !is_matrix(name, shape) {
        // Gates of a recurrence, read once a token: bf16 is what they were trained in.
        return if shape.len() > 2 && from == Format::BF16 { Format::BF16 } else { Format::F32 };
    }
    let is_output = name == "output.weight" || (tied && name == "token_embd.weight");
    let part = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let layer: usize = part.and_then(|(layer, _)| layer.parse().ok()).unwrap_or(0);
    // What reads pictures is a small part of the model, and all of a picture passes through it.
    let sees = name.starts_with(names::TOWER_GGUF) || name.starts_with(names::PROJECTOR_GGUF);
    let wished = match (kind, part.map(|(_, part)| part)) {
        (QuantType::Q8_0, _) => Format::Q8_0,
        (_, _) if sees => Format::Q8_0,
        (_, _) if is_output => Format::Q6_K,
        (QuantType::Q4_0, _) => Format::Q4_0,
        (QuantType::Q4_K_M, Some("attn_v.weight")) => {
            let (place, all) = attention(layer);
            four_or_six(place, all)
        }
        (QuantType::Q4_K_M, Some("ffn_down.weight")) => four_or_six(layer, layers),
        (QuantType::Q4_K_M, _) => Format::Q4_K,
    };
    fitting(wished, shape.last().copied().unwrap_or(0), from)
}

/// More bits for the first and the last eighth of the layers, and for every third between.
fn four_or_six(place: usize, all: usize) -> Format {
    let eighth = all / 8;
    let more = place < eighth || place >= 7 * all / 8 || place.saturating_sub(eighth) % 3 == 2;
    if more { Format::Q6_K } else { Format::Q4_K }
}

/// The format, or the next that rows of this length divide into.
fn fitting(format: Format, cols: usize, from: Format) -> Format {
    let fits = |format: Format| cols.is_multiple_of(format.block_len());
    let smaller_blocks = match format {
        Format::Q4_K => Format::Q5_0,
        Format::Q6_K => Format::Q8_0,
        other => other,
    };
    match (fits(format), fits(smaller_blocks), from) {
        (true, _, _) => format,
        (_, true, _) => smaller_blocks,
        (_, _, Format::BF16) => Format::BF16,
        _ => Format::F16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed(kind: QuantType, name: &str, shape: &[usize], layers: usize) -> Format {
        format(kind, name, shape, Format::BF16, layers, |layer| (layer, layers), true)
    }

    #[test]
    fn q4_k_m_is_the_mixture_of_published_files() {
        // As the published Gemma 3 270M Q4_K_M has them; 640 columns are no blocks of 256.
        let six = [0, 1, 4, 7, 10, 13, 15, 16, 17];
        for layer in 0..18 {
            let of = |part: &str, cols| {
                mixed(QuantType::Q4_K_M, &format!("blk.{layer}.{part}.weight"), &[640, cols], 18)
            };
            let more = six.contains(&layer);
            assert_eq!(of("ffn_down", 2048), if more { Format::Q6_K } else { Format::Q4_K }, "{layer}");
            assert_eq!(of("attn_v", 640), if more { Format::Q8_0 } else { Format::Q5_0 }, "{layer}");
            assert_eq!(of("attn_output", 1024), Format::Q4_K);
            assert_eq!(of("ffn_up", 640), Format::Q5_0);
        }
        assert_eq!(mixed(QuantType::Q4_K_M, "token_embd.weight", &[262_144, 640], 18), Format::Q8_0);
        assert_eq!(mixed(QuantType::Q4_K_M, "token_embd.weight", &[256_000, 2048], 18), Format::Q6_K);
    }

    #[test]
    fn what_is_no_matrix_stays_plain() {
        for kind in QuantType::ALL {
            let norm = format(kind, "blk.0.attn_norm.weight", &[64], Format::BF16, 2, |_| (0, 2), true);
            assert_eq!(norm, Format::F32);
            let bias = format(kind, "blk.0.rec_gate.bias", &[4, 64], Format::BF16, 2, |_| (0, 2), true);
            assert_eq!(bias, Format::F32);
            let gate = format(kind, "blk.0.rec_gate.weight", &[4, 64, 64], Format::BF16, 2, |_| (0, 2), true);
            assert_eq!(gate, Format::BF16);
            let positions = "v.embeddings.position_embedding.weight";
            assert_eq!(mixed(kind, positions, &[256, 1152], 2), Format::F32);
            assert_eq!(mixed(kind, "v.encoder.layers.0.self_attn.q_proj.weight", &[64, 64], 2), Format::Q8_0);
            assert_eq!(mixed(kind, "mm.linear.weight", &[64, 64], 2), Format::Q8_0);
        }
    }

    #[test]
    fn rows_that_no_block_divides_stay_in_sixteen_bits() {
        assert_eq!(mixed(QuantType::Q8_0, "blk.0.ffn_up.weight", &[8, 40], 2), Format::BF16);
        assert_eq!(fitting(Format::Q4_0, 40, Format::F32), Format::F16);
    }

    #[test]
    fn an_output_table_of_its_own_leaves_the_embeddings_to_the_type() {
        let table = |tied| {
            format(QuantType::Q4_K_M, "token_embd.weight", &[8, 256], Format::F32, 2, |_| (0, 2), tied)
        };
        assert_eq!((table(true), table(false)), (Format::Q6_K, Format::Q4_K));
        assert_eq!(mixed(QuantType::Q4_0, "output.weight", &[8, 256], 2), Format::Q6_K);
    }
}
