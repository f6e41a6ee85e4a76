"""The command, as a process of its own: it serves until it is stopped, and ends well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
from running import free_port

KEY = "a-key-that-is-long-enough"
ASK = {"messages": [{"role": "user", "content": "the film of Ann"}], "seed": 1}


def test_the_command_serves_until_it_is_stopped_and_ends_well(model: Path, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "plaudit.cli.main", "serve", str(model), "--port", str(port), "--rows", "2"]
    environment = {**os.environ, "PLAUDIT_API_KEYS": KEY, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as process:
        try:
            assert process.stderr is not None
            address = f"http://127.0.0.1:{port}/v1"
            assert any(address in line for line in process.stderr), "what it says before may be of packages"
            headers = {"Authorization": f"Bearer {KEY}"}
            body = {**ASK, "max_tokens": 300, "min_tokens": 300, "stream": True}
            url = f"http://127.0.0.1:{port}/v1/chat/completions"
            with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as answer:
                lines = answer.iter_lines()
                next(lines)
                process.send_signal(signal.SIGTERM)
                rest = list(lines)
            assert rest[-2] == "data: [DONE]", "what is being drawn is finished"
            assert process.wait(60) == 0
        finally:
            process.kill()
