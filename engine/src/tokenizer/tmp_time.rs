#[test]
fn time() {
    use std::time::Instant;
    let gg = crate::test_cache::file("models/gemma-3-270m-q4_k_m.gguf");
    for _ in 0..3 {
        let t = Instant::now();
        let c = crate::checkpoint::Checkpoint::open(&gg).unwrap();
        let a = t.elapsed();
        let t = Instant::now();
        let tok = c.tokenizer().unwrap();
        eprintln!("gguf open {a:?} tokenizer {:?}", t.elapsed());
        let p = crate::test_cache::file("tokenizers/gemma3/tokenizer.json");
        let t = Instant::now();
        let b = std::fs::read(&p).unwrap();
        let a = t.elapsed();
        let t = Instant::now();
        let j = super::Tokenizer::from_json(&b, &p).unwrap();
        eprintln!("json read {a:?} parse {:?}", t.elapsed());
        let t = Instant::now();
        super::json_added_token(&b, "<end_of_turn>");
        eprintln!("added {:?}", t.elapsed());
        let src = include_str!("mod.rs");
        for (n, k) in [("gguf", &tok), ("json", &j)] {
            for _ in 0..3 {
                let t = Instant::now();
                let ids = k.encode(src).unwrap();
                let e = t.elapsed();
                let t = Instant::now();
                let d = k.decode(&ids, true);
                eprintln!(
                    "{n} {} chars {} ids encode {e:?} decode {:?} {}",
                    src.len(),
                    ids.len(),
                    t.elapsed(),
                    d == src
                );
            }
        }
    }
}
