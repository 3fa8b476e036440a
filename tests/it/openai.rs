//! The example `tokens` and OpenAI's official client for Node, unchanged. The test is ignored, because it needs Node
//! and the package from npm. Run it with `cargo test -- --ignored openai`.

use super::examples::Example;
use super::machine::installed;
use std::path::Path;
use std::process::Command;

#[test]
#[ignore = "needs Node and npm's openai: cargo test -- --ignored openai"]
fn openai_client_unchanged_reads_tokens() {
    let package = installed("npm/node_modules/openai/index.mjs");
    let tokens = Example::start("tokens");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/openai.mjs");
    let mut node = Command::new("node");
    node.arg(script).arg(package).arg(format!("http://{}/v1", tokens.address));
    let output = node.output().expect("this test needs Node: apt-get install nodejs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "plain\nstream\nhelper\ncancelled\n", "{errors}");
    assert!(output.status.success(), "{errors}");
}
