//! Finds loops in examples and documents that accept one handshake after another.

/// Returns the numbers of the lines where such loops begin. A peer could delay all later ones.
///
/// Of Rust code outside of `examples`, which includes tests with two peers, only documentation is
/// checked.
pub(crate) fn in_turn(path: &str, text: &str) -> Vec<usize> {
    let is_document = path.ends_with(".md") || path.starts_with("examples/");
    if !is_document && !path.ends_with(".rs") {
        return Vec::new();
    }
    let documentation = |line| {
        let line = str::trim_start(line);
        line.strip_prefix("/// ").or_else(|| line.strip_prefix("//! ")).unwrap_or_default()
    };
    let lines: Vec<_> =
        text.lines().map(|line| if is_document { line } else { documentation(line) }).collect();
    let accepts_in_turn = |at: usize| {
        let depth = indentation(lines[at]);
        let body = lines[at + 1..].iter();
        let body = body.take_while(|line| line.trim().is_empty() || indentation(line) > depth);
        let code: String = lines[at].split_whitespace().collect();
        let code = code + &body.flat_map(|line| line.split_whitespace()).collect::<String>();
        // The first is of the listener, the second of the request.
        code.matches(".accept().await").count() > 1 && !code.contains("spawn(")
    };
    let found = (0..lines.len()).filter(|at| begins_loop(lines[*at]) && accepts_in_turn(*at));
    found.map(|at| at + 1).collect()
}

/// Hidden lines of examples begin with `# `.
fn begins_loop(line: &str) -> bool {
    let line = line.trim();
    let line = line.strip_prefix("# ").unwrap_or(line);
    line.ends_with('{') && ["loop ", "while ", "for "].iter().any(|word| line.starts_with(word))
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_TURN: &str = "\
fn serve() {
    loop {
        let request = listener.accept().await?;
        let connection = request
            .accept().await?;
    }
}";

    #[test]
    fn loops_that_accept_one_handshake_after_another_are_found() {
        assert_eq!(in_turn("examples/x.rs", IN_TURN), [2]);
        assert_eq!(in_turn("docs/x.md", IN_TURN), [2]);
        assert!(in_turn("crates/x/src/lib.rs", IN_TURN).is_empty(), "it is a test");
        let documentation = IN_TURN.replace("\n", "\n/// ");
        assert_eq!(in_turn("crates/x/src/lib.rs", &documentation), [2]);
        let header =
            "while let Ok(request) = listener.accept().await {\n    request.accept().await;\n}";
        assert_eq!(in_turn("examples/x.rs", header), [1]);
        let chained = "loop {\n    listener.accept().await?.accept().await?;\n}";
        assert_eq!(in_turn("examples/x.rs", chained), [1]);
    }

    #[test]
    fn a_task_per_request_and_a_single_peer_are_in_order() {
        let with_tasks = IN_TURN.replace("request\n", "spawn(async move { request }");
        assert!(in_turn("examples/x.rs", &with_tasks).is_empty());
        let single = IN_TURN.replace("    loop {", "    async {");
        assert!(in_turn("examples/x.rs", &single).is_empty());
        let after = "loop {\n    break;\n}\nlistener.accept().await?.accept().await?;";
        assert!(in_turn("examples/x.rs", after).is_empty());
    }
}
