//! The OpenAPI description and a node: a fuzzer makes valid and invalid requests, and checks each answer with the
//! description.

use anyhow::ensure;
use serde_json::json;
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::{is_full, run_heavy_test};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::tools::{python, run};

use super::back_end_at;

/// Checks of each answer: no 5xx, and only described statuses, media types, headers and bodies.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,negative_data_rejection,unsupported_method,ignored_auth";

/// Requests of each operation.
const EXAMPLES: &str = "4";
const EXAMPLES_FULL: &str = "500";

/// Each run makes the same requests.
const SEED: &str = "23";

#[test]
fn each_answer_to_a_fuzzer_is_as_described() {
    run_heavy_test(async |fixture| {
        let (fleet, own) = (Fleet::new(fixture), free_address()?);
        let app = fleet.app(App::Bench).await?;
        let mut node = fleet.proxy_with(&[&app], &["--rest-listen", &own]).await?;
        let mut client = RawClient::join(node.address(), "/bench").await?;
        let examples = if is_full() { EXAMPLES_FULL } else { EXAMPLES };
        let mut fuzzer = python("schemathesis")?;
        fuzzer
            .current_dir(fixture.folder())
            .env("NO_COLOR", "1")
            .arg("run")
            .arg(format!("http://{own}/api/openapi.json"));
        // Served by the admin port.
        fuzzer.args(["--exclude-path", "/api/conditions"]);
        fuzzer.args(["--header", &format!("Authorization: {}", back_end_at(&own)?.authorization())]);
        fuzzer.args(["--checks", CHECKS, "--seed", SEED, "--max-examples", examples, "--workers", "1"]);
        fuzzer.args([
            "--phases",
            "examples,coverage,fuzzing",
            "--request-timeout",
            "10",
            "--no-shrink",
            "--warnings",
            "off",
        ]);
        let told = run(&mut fuzzer).await?;
        ensure!(node.process.is_running());
        let answered = node.metrics().await?.sum("trunkline_rest_requests_total", &[]);
        ensure!(answered > 500.0, "only {answered} requests\n{told}");
        let echoed = client.call("Echo", json!(["still here"])).await?;
        ensure!(echoed["result"] == "still here", "{echoed}");
        Ok(())
    });
}
