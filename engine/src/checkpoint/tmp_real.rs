#[test]
fn real() {
    let begin = std::time::Instant::now();
    let mut last = None;
    let found = super::pull("default", &mut |p| {
        let k = (p.phase, p.done_bytes / 20_000_000);
        if last != Some(k) {
            last = Some(k);
            eprintln!("{:?} {:?}", begin.elapsed(), p);
        }
    });
    eprintln!("{:?} {found:?}", begin.elapsed());
    eprintln!("{:?}", super::resolve(None));
    eprintln!("{:?}", super::pull("codegemma-2b", &mut |_| {}));
    eprintln!("{:?}", begin.elapsed());
}
