//! What outlives the process: written, found again, and dropped where it is damaged, stale or somebody else's.

use std::fs;
use std::path::{Path, PathBuf};

use gemma_kernels::{KvFormat, KvLayout};
use tempfile::TempDir;

use super::tests::{assert_sound, attention, extend, sequence};
use super::*;

/// A folder for prefixes and a file that stands for a model.
struct Place {
    _folder: TempDir,
    model: PathBuf,
    folder: CacheFolder,
}

fn place(max_bytes: u64) -> Place {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let model = folder.path().join("model.gguf");
    fs::write(&model, "weights").expect("it can be written to");
    let path = folder.path().join("cache/prefix");
    Place { _folder: folder, model, folder: CacheFolder { path, max_bytes } }
}

impl Place {
    fn kept(&self, layout: &Arc<Layout>) -> Kept {
        Kept::look(&self.folder, &self.model, "a test", layout).expect("the model is there")
    }

    /// What the next session begins with.
    fn session(&self, layout: &Arc<Layout>) -> PrefixCache {
        let mut cache = PrefixCache::new(u64::MAX).stored_in(Some(self.folder.clone()));
        cache.begin(1, self.kept(layout));
        cache
    }

    fn file(&self) -> PathBuf {
        let files: Vec<_> = fs::read_dir(&self.folder.path).expect("it was made").flatten().collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].path()
    }
}

fn layouts() -> [Arc<Layout>; 6] {
    let [half, bytes] = [KvFormat::F16, KvFormat::Q8].map(|format| KvLayout::new(format, [(1, 8)]));
    [
        attention(None),
        attention(Some(40)),
        Arc::new(Layout::without_state(half, None)),
        Arc::new(Layout::without_state(bytes, None)),
        Arc::new(Layout::recurrent(None)),
        Arc::new(Layout::recurrent(Some(40))),
    ]
}

/// Two prompts of 200 tokens that part behind 50, and a short one.
fn prompts() -> [Vec<u32>; 3] {
    let long: Vec<u32> = (0..200).collect();
    [long.clone(), [&long[..50], &(500..650).collect::<Vec<_>>()].concat(), vec![9, 8, 7]]
}

fn fill(cache: &mut PrefixCache, layout: &Arc<Layout>) {
    for prompt in prompts() {
        let mut sequence = cache.resume(1, layout, &prompt);
        let from = sequence.tokens().len();
        extend(&mut sequence, &prompt[from..]);
        cache.keep(1, sequence);
    }
}

/// The lengths of the prompts that are found; whatever it is, it is right.
fn found(cache: &mut PrefixCache, layout: &Arc<Layout>) -> Vec<usize> {
    let lens = prompts().map(|prompt| {
        let sequence = cache.resume(1, layout, &[&prompt[..], &[1000]].concat());
        assert_sound(&sequence);
        assert!(prompt.starts_with(sequence.tokens()));
        sequence.tokens().len()
    });
    lens.to_vec()
}

#[test]
fn the_next_session_finds_what_the_last_one_kept() {
    for layout in layouts() {
        let place = place(u64::MAX);
        let mut cache = place.session(&layout);
        assert_eq!(found(&mut cache, &layout), [0, 0, 0]);
        fill(&mut cache, &layout);
        cache.close();
        for _ in 0..3 {
            let mut next = place.session(&layout);
            assert!(next.bytes() < 4000, "parts are in the file until they are used");
            assert_eq!(found(&mut next, &layout), [200, 200, 3], "{layout:?}");
            assert_eq!(next.bytes(), next.trees.values().map(Tree::audit).sum::<u64>());
            // Something new, so that everything is written again, what was loaded and what was not.
            next.keep(1, sequence(&layout, &[77, 78]));
            next.close();
        }
    }
}

#[test]
fn a_page_is_loaded_from_the_node_that_has_most_of_it() {
    for layout in layouts() {
        let place = place(u64::MAX);
        let [long, ..] = prompts();
        let mut cache = place.session(&layout);
        // A snapshot behind 49 tokens, nodes that part behind 50, and a page of both of them.
        cache.keep(1, sequence(&layout, &long[..49]));
        fill(&mut cache, &layout);
        cache.close();
        for len in (1..200).rev() {
            let mut next = place.session(&layout);
            let mut found = next.resume(1, &layout, &[&long[..len], &[1000]].concat());
            assert_sound(&found);
            extend(&mut found, &[1000]);
            assert_sound(&found);
        }
    }
}

#[test]
fn what_was_not_used_is_copied_from_file_to_file() {
    for layout in layouts() {
        let place = place(u64::MAX);
        let mut cache = place.session(&layout);
        fill(&mut cache, &layout);
        cache.close();
        let mut unused = place.session(&layout);
        unused.keep(1, sequence(&layout, &[77, 78]));
        unused.close();
        assert_eq!(found(&mut place.session(&layout), &layout), [200, 200, 3]);
    }
}

#[test]
fn a_forgotten_model_is_written_and_a_saved_one_stays() {
    let layout = attention(None);
    let place = place(u64::MAX);
    let mut cache = place.session(&layout);
    fill(&mut cache, &layout);
    cache.save();
    assert_eq!(found(&mut cache, &layout), [200, 200, 3], "in memory it stays");
    cache.forget(1);
    assert_eq!(cache.bytes(), 0);
    drop(cache);
    assert_eq!(found(&mut place.session(&layout), &layout), [200, 200, 3]);
}

#[test]
fn no_damage_makes_a_wrong_key() {
    for layout in layouts() {
        let place = place(u64::MAX);
        let mut cache = place.session(&layout);
        fill(&mut cache, &layout);
        cache.close();
        let (file, step) = (place.file(), 97);
        let whole = fs::read(&file).expect("it was written");
        for at in (0..whole.len()).step_by(step).chain(whole.len() - 40..whole.len()) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            for damaged in [&flipped[..], &whole[..at]] {
                fs::write(&file, damaged).expect("it can be written to");
                let mut next = place.session(&layout);
                found(&mut next, &layout);
                assert_eq!(next.bytes(), next.trees.values().map(Tree::audit).sum::<u64>());
                // What is damaged is computed again, and kept.
                fill(&mut next, &layout);
                assert_eq!(found(&mut next, &layout), [200, 200, 3], "damaged at {at} of {layout:?}");
            }
        }
        fs::write(&file, [&whole[..], b"more"].concat()).expect("it can be written to");
        assert_eq!(found(&mut place.session(&layout), &layout), [0, 0, 0]);
        fs::write(&file, b"").expect("it can be written to");
        assert_eq!(found(&mut place.session(&layout), &layout), [0, 0, 0]);
    }
}

#[test]
fn damage_that_was_not_noticed_is_not_blessed_by_writing_it_again() {
    let layout = attention(None);
    let place = place(u64::MAX);
    let mut cache = place.session(&layout);
    fill(&mut cache, &layout);
    cache.close();
    let file = place.file();
    let mut bytes = fs::read(&file).expect("it was written");
    // In the first page.
    bytes[100] ^= 1;
    fs::write(&file, bytes).expect("it can be written to");
    let mut next = place.session(&layout);
    next.keep(1, sequence(&layout, &[77, 78]));
    next.close();
    let lens = found(&mut place.session(&layout), &layout);
    assert!(
        lens.contains(&0) && lens != [0, 0, 0],
        "{lens:?}: what stands on that page is lost, the rest not"
    );
}

#[test]
fn keys_kept_in_another_format_are_not_read() {
    let [_, _, half, bytes, ..] = layouts();
    for (kept, wanted) in [(&half, &bytes), (&bytes, &half)] {
        let place = place(u64::MAX);
        let mut cache = place.session(kept);
        fill(&mut cache, kept);
        cache.close();
        assert_eq!(found(&mut place.session(wanted), wanted), [0, 0, 0]);
        assert_eq!(found(&mut place.session(kept), kept), [200, 200, 3]);
    }
}

#[test]
fn another_model_file_or_layout_finds_nothing() {
    let [layout, other, ..] = layouts();
    let place = place(u64::MAX);
    let mut cache = place.session(&layout);
    fill(&mut cache, &layout);
    cache.close();
    assert_eq!(found(&mut place.session(&other), &other), [0, 0, 0]);
    let elsewise = Kept::look(&place.folder, &place.model, "another way", &layout).expect("it is there");
    assert!(elsewise.tree.is_none());
    fs::write(&place.model, "others!").expect("it can be written to");
    assert_eq!(found(&mut place.session(&layout), &layout), [0, 0, 0], "the model file was replaced");
}

#[test]
fn the_best_is_written_within_the_bound() {
    for layout in layouts() {
        let place = place(8_000);
        let mut cache = place.session(&layout);
        // Long unused, and much.
        cache.keep(1, sequence(&layout, &(2000..4000).collect::<Vec<_>>()));
        cache.clock += 100.0;
        fill(&mut cache, &layout);
        cache.close();
        let len = fs::metadata(place.file()).expect("it was written").len();
        assert!(len <= 8_000, "{len} bytes");
        let lens = found(&mut place.session(&layout), &layout);
        assert!(lens.iter().sum::<usize>() > 30, "{lens:?} of {layout:?}");
    }
}

#[test]
fn a_span_is_never_written() {
    let layout = attention(None);
    let place = place(u64::MAX);
    let mut cache = place.session(&layout);
    let span = u32::MAX - 3;
    cache.keep(1, sequence(&layout, &[2, 5, span, span, 6, 7]));
    cache.keep(1, sequence(&layout, &[2, 5, span, span, 8]));
    cache.keep(1, sequence(&layout, &[2, 5, 6]));
    cache.keep(1, sequence(&layout, &[span, 5, 6]));
    cache.close();
    let mut next = place.session(&layout);
    assert_eq!(next.resume(1, &layout, &[2, 5, span, span, 6, 7, 1]).tokens(), [2, 5]);
    assert_eq!(next.resume(1, &layout, &[2, 5, 6, 1]).tokens(), [2, 5, 6]);
    assert!(next.resume(1, &layout, &[span, 5, 6]).tokens().is_empty());
}

#[test]
fn a_folder_that_cannot_be_written_to_costs_nothing_else() {
    let layout = attention(None);
    let mut place = place(u64::MAX);
    place.folder.path = place.model.join("below a file");
    let mut cache = place.session(&layout);
    fill(&mut cache, &layout);
    cache.save();
    assert_eq!(found(&mut cache, &layout), [200, 200, 3]);
    cache.close();
    assert_eq!(found(&mut place.session(&layout), &layout), [0, 0, 0]);
}

#[test]
fn files_of_other_models_go_before_there_is_too_much() {
    let layout = attention(None);
    let place = place(50_000);
    fs::create_dir_all(&place.folder.path).expect("it can be made");
    let old = place.folder.path.join("0123456789abcdef.prefixes");
    let foreign = place.folder.path.join("notes.txt");
    fs::write(&foreign, vec![0; 60_000]).expect("it can be written to");
    for (len, stays) in [(1_000, true), (49_000, false)] {
        fs::write(&old, vec![0; len]).expect("it can be written to");
        let mut cache = place.session(&layout);
        fill(&mut cache, &layout);
        cache.keep(1, sequence(&layout, &[len as u32]));
        cache.close();
        assert_eq!(old.exists(), stays, "{len} bytes of another model");
    }
    assert!(foreign.exists(), "what is not ours stays");
}

#[cfg(unix)]
#[test]
fn only_its_owner_reads_what_was_typed() {
    use std::os::unix::fs::PermissionsExt;
    let layout = attention(None);
    let place = place(u64::MAX);
    let mut cache = place.session(&layout);
    fill(&mut cache, &layout);
    cache.close();
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&place.file()), mode(&place.folder.path)), (0o600, 0o700));
}

#[test]
fn a_model_that_was_given_up_leaves_nothing_of_what_came_before_or_after() {
    let layout = attention(None);
    let place = place(u64::MAX);
    let mut cache = place.session(&layout);
    fill(&mut cache, &layout);
    cache.give_up(1);
    assert_eq!(found(&mut cache, &layout), [0, 0, 0]);
    fill(&mut cache, &layout);
    cache.close();
    assert_eq!(found(&mut place.session(&layout), &layout), [0, 0, 0]);
}
