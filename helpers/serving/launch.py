"""Launch: the web page from a notebook; in Colab inside it, through Colab's own port frame."""

import atexit
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from helpers.colab import in_colab
from helpers.files import ROOT, SuiteError, show_path

APP = Path(__file__).with_name("app.py")
PATIENCE_S = 60  # until the page has to answer
# The frame's address is another than the page's own; it is reached through Colab alone.
FRAMED = ("--server.enableCORS", "false", "--server.enableXsrfProtection", "false")
ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}  # as app.py says, which comes a little late for it


@dataclass(frozen=True)
class Page:
    """A page at work, until `stop`, or until this process ends."""

    process: subprocess.Popen
    port: int

    @property
    def address(self) -> str:
        """Where a browser on this machine finds it."""
        return f"http://localhost:{self.port}"

    def show(self, height: int = 900) -> None:
        """Show it below the cell in Colab; elsewhere say where it is."""
        if in_colab():
            from google.colab import output

            output.serve_kernel_port_as_iframe(self.port, height=str(height))
        else:
            print(f"open {self.address} in a browser on this machine, while this notebook runs")

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def start_page(place: str | Path, port: int | None = None) -> Page:
    """Start the web page of a saved model, and wait until it answers.

    Args:
        place: the model's folder, or its run's.
        port: to listen on, of this machine alone; a free one unless it is named.

    Raises:
        SuiteError: the port is taken, or it does not start; with its last words.
    """
    port = _find_port(port or 0)
    options = ["--server.port", str(port), *(FRAMED if in_colab() else ())]
    # A pipe that nobody reads would fill up, and stop the page.
    said = tempfile.TemporaryFile("w+")  # noqa: SIM115
    process = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", str(APP), *options, "--", "--run", str(place)],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=said, env=os.environ | ONE_ARENA,
        start_new_session=True)  # an interrupted cell is none of its business
    page = Page(process, port)
    atexit.register(page.stop)
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{page.address}/_stcore/health", timeout=2):
                return page
        except OSError:
            time.sleep(0.2)
    page.stop()
    said.seek(0)
    words = said.read().strip().splitlines()[-3:]
    raise SuiteError(f"the page of {show_path(place)} did not start: "
                     f"{' '.join(words) or 'no answer'}.")


def _find_port(port: int) -> int:
    """Return a port that is free: `port`, or any for 0."""
    try:
        with socket.socket() as found:
            found.bind(("localhost", port))
            return found.getsockname()[1]
    except OSError as error:
        raise SuiteError(f"port {port} is taken ({error.strerror}): name another one.") from None
