//! The shell examples of the users' guides, run as they stand against a server, in one shell per guide.

use std::path::Path;
use std::process::Command;

use bigpeer_e2e::{Flights, Server, binary};

/// A ```` ```language ```` block of a guide.
#[derive(Debug)]
struct Block {
    language: String,
    text: String,
}

fn blocks(guide: &str) -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(guide);
    let text = std::fs::read_to_string(path).unwrap();
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(Block { language: language.to_owned(), text: text.join("\n") });
        }
    }
    blocks
}

/// What changes from run to run, made the same.
fn comparable(text: &str) -> serde_json::Value {
    let mut json: serde_json::Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    if let Some(object) = json.as_object_mut() {
        object.remove("transactionId");
    }
    json
}

/// Runs every `sh` block in one shell, so that variables of the first hold in the others; answers each block's output.
fn run(blocks: &[&Block], dir: &Path) -> Vec<String> {
    let mark = "--- end of block ---";
    let script: Vec<String> = blocks.iter().map(|block| format!("{}\necho; echo '{mark}'", block.text)).collect();
    let path = format!("{}:{}", binary().parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script.join("\n")])
        .current_dir(dir)
        .env("PATH", path)
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
    stdout.split(mark).map(|part| part.trim().to_owned()).take(blocks.len()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_http_guide_answer_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(&dir.path().join("data")).await;
    let blocks = blocks("http-api.md");
    let shell: Vec<&Block> = blocks.iter().filter(|block| block.language == "sh").collect();
    assert!(shell.len() >= 6, "the guide has examples");
    let outputs = run(&shell, dir.path());
    let mut compared = 0;
    for (at, block) in blocks.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| blocks.get(at)).filter(|before| before.language == "sh");
        if let (Some(before), "json") = (before, block.language.as_str()) {
            // A JSON block right behind an example that asks for JSON is its answer.
            let output = &outputs[shell.iter().position(|one| std::ptr::eq(*one, before)).unwrap()];
            if output.contains("\"key\"") {
                continue;
            }
            assert_eq!(comparable(output), comparable(&block.text), "{}", before.text);
            compared += 1;
        }
    }
    assert!(compared >= 3, "answers are compared");
    for output in &outputs {
        assert!(!output.contains("\"code\""), "an example is answered with an error: {output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_guide_to_authentication_work() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(&dir.path().join("data")).await;
    let blocks = blocks("auth.md");
    let shell: Vec<&Block> = blocks.iter().filter(|block| block.language == "sh").collect();
    let outputs = run(&shell, dir.path());
    assert!(outputs[1].contains(r#""name":"clerk""#) && outputs[2].contains(r#"{"n":0}"#), "{outputs:?}");
    for output in &outputs {
        assert!(!output.contains("\"code\""), "an example is answered with an error: {output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_guide_to_administration_work() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(&dir.path().join("data")).await;
    let blocks = blocks("admin.md");
    let shell: Vec<&Block> = blocks.iter().filter(|block| block.language == "sh").collect();
    let outputs = run(&shell, dir.path());
    assert!(outputs[1].contains(r#""name":"flights""#) && outputs[1].contains(r#""next":null"#), "{outputs:?}");
    assert!(outputs[3].contains(r#""name":"trains""#) && outputs[3].contains(r#""name":"acme-ci""#), "{outputs:?}");
    assert!(outputs[4].contains(r#""scopes":["sql"]"#), "{outputs:?}");
    assert!(outputs[5].contains(r#""path":"/admin/v1/tenants/acme""#), "{outputs:?}");
    for output in &outputs {
        assert!(!output.contains("\"code\""), "an example is answered with an error: {output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_guide_to_quotas_work() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(&dir.path().join("data")).await;
    let blocks = blocks("quotas.md");
    let shell: Vec<&Block> = blocks.iter().filter(|block| block.language == "sh").collect();
    let outputs = run(&shell, dir.path());
    assert!(outputs[0].contains(r#""sessions":5000"#) && outputs[1].contains(r#""transactions":0"#), "{outputs:?}");
    for output in &outputs {
        assert!(!output.contains("\"code\""), "an example is answered with an error: {output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_guide_to_running_work() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(&dir.path().join("data")).await;
    std::fs::rename(Flights::get().head(100, dir.path()), dir.path().join("flights.csv")).unwrap();
    let blocks = blocks("run.md");
    let shell: Vec<&Block> =
        blocks.iter().filter(|block| block.language == "sh" && block.text != "bigpeer serve").collect();
    let outputs = run(&shell, dir.path());
    let (certificate, outputs) = outputs.split_first().unwrap();
    assert!(certificate.contains("till.local") && dir.path().join("tls/ca.pem").exists(), "{certificate}");
    assert!(outputs[0].contains(r#"{"_id":1,"color":"blue"}"#), "{}", outputs[0]);
    assert!(outputs[0].contains(r#""n":1"#), "{}", outputs[0]);
    assert!(dir.path().join("cars.parquet").metadata().unwrap().len() > 100);
    assert!(dir.path().join("phone").exists());
    let exported = std::fs::read_to_string(dir.path().join("colors.csv")).unwrap();
    assert!(exported.starts_with("color,n\n"), "{exported}");
}
