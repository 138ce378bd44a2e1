"""Requests of all kinds, made from the OpenAPI document by schemathesis: no answer that it does not describe, and no 500."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

SERVER = os.environ["DORMOUSE_TEST_HTTP"]
TOKEN = os.environ.get("DORMOUSE_TEST_TOKEN")
HERE = pathlib.Path(__file__).parent
EXAMPLES = "20"
SEED = "5"


class OpenApi(unittest.TestCase):
    def test_answers_are_as_documented(self):
        command = [sys.executable, "-m", "schemathesis.cli"]
        command += ["--config-file", str(HERE / "schemathesis.toml")]
        command += ["run", f"http://{SERVER}/openapi.json", "--seed", SEED, "--max-examples", EXAMPLES]
        command += ["--phases", "examples,coverage,fuzzing", "--no-color"]
        if TOKEN:
            command += ["--header", f"Authorization: Bearer {TOKEN}"]
        # It keeps what it has found where it runs.
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout[-20_000:] + done.stderr[-5_000:])


if __name__ == "__main__":
    unittest.main()
