"""Bench of serving: the batch command beside extraction, and the page with many visitors at once.

    python -m helpers.dev.bench_serving --run outputs/vehicles --photos DATA/vehicles

Visitors speak the page's own protocol, without browsers, which would take the cores for
themselves: each opens a session, uploads photos one after another, and waits for the answer.
"""

import argparse
import asyncio
import itertools
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from helpers.features.streaming import ImageFiles, stream_features
from helpers.serving.launch import start_page
from helpers.serving.predict import list_photos, write_predictions
from helpers.serving.predictor import load_predictor

AT_MOST = 1_000  # photos that all visitors send together
FORGOTTEN_S = 40  # after which the page has let go of visitors who left


def bench_batch(run: str, photos: list[str], rounds: int = 3) -> None:
    """Print images/s of extraction and of the batch command, by turns on the same engine."""
    predictor, rates = load_predictor(run), {"extraction": [], "batch": []}
    files = ImageFiles(pd.DataFrame({"path": photos}), predictor.reader.data_config)
    with tempfile.TemporaryDirectory() as place:
        for _ in range(rounds):
            start = time.perf_counter()
            stream_features(predictor.engine, files, Path(place, "features.npy"), {},
                            progress=False)
            rates["extraction"].append(len(photos) / (time.perf_counter() - start))
            start = time.perf_counter()
            refused = write_predictions(predictor, photos, Path(place, "predictions.csv"))
            rates["batch"].append(len(photos) / (time.perf_counter() - start))
    extraction, batch = (float(np.median(rate)) for rate in rates.values())
    print(f"{len(photos)} photos, medians of {rounds} rounds: extraction {extraction:.0f} "
          f"images/s, batch command {batch:.0f}, {batch / extraction:.0%} of it; "
          f"{len(refused)} refused")


def bench_page(run: str, photos: list[str], visitors: int, each: int) -> None:
    """Print how long visitors who come together wait, and what the page's memory does."""
    each = min(each, AT_MOST // visitors)
    page = start_page(run)
    try:
        process = psutil.Process(page.process.pid)
        first = asyncio.run(_visit(page.port, photos[:3]))
        print("one visitor alone, seconds to each answer: "
              + ", ".join(f"{seconds:.2f}" for seconds in first))
        time.sleep(FORGOTTEN_S)
        before = process.memory_info().rss / 2**20
        turns = itertools.cycle(photos)
        given = [list(itertools.islice(turns, each)) for _ in range(visitors)]

        async def come_together():
            return await asyncio.gather(*(_visit(page.port, own) for own in given),
                                        return_exceptions=True)

        start = time.perf_counter()
        found = asyncio.run(come_together())
        seconds = time.perf_counter() - start
        errors = [part for part in found if isinstance(part, BaseException)]
        waits = [wait for part in found if not isinstance(part, BaseException) for wait in part]
        peak = process.memory_info().rss / 2**20
        time.sleep(FORGOTTEN_S)
        asyncio.run(_visit(page.port, photos[:3]))  # who comes next makes it let go of the others
        after = process.memory_info().rss / 2**20
        print(f"{visitors} visitors at once, {each} photos each: {len(waits)} answers in "
              f"{seconds:.0f} s, {len(errors)} errors; median {np.median(waits):.2f} s, 95th "
              f"percentile {np.percentile(waits, 95):.2f} s; memory {before:.0f} MiB before, "
              f"{peak:.0f} right after, {after:.0f} when they have gone")
        for error in errors[:3]:
            print(f"  {type(error).__name__}: {error}")
    finally:
        page.stop()


async def _visit(port: int, photos: list[str]) -> list[float]:
    """Open a session, upload photos one by one, and return the seconds until each answer."""
    from streamlit.proto.Alert_pb2 import Alert
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.Common_pb2 import FileUploaderState, UploadedFileInfo
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
    from websockets.asyncio.client import connect

    address = f"ws://localhost:{port}/_stcore/stream"
    async with connect(address, subprotocols=["streamlit"], max_size=None) as socket:

        async def receive() -> ForwardMsg:
            message = ForwardMsg()
            message.ParseFromString(await asyncio.wait_for(socket.recv(), 120))
            return message

        async def send(message: BackMsg) -> None:
            await socket.send(message.SerializeToString())

        async def follow(answered: bool = False) -> tuple[str, str, float]:
            """Return the session, the uploader's id, and when the answer came."""
            session = uploader = ""
            came = 0.0
            while True:
                message = await receive()
                kind = message.WhichOneof("type")
                if kind == "new_session":
                    session = message.new_session.initialize.session_id
                if kind == "delta":
                    element = message.delta.new_element
                    shown = element.WhichOneof("type")
                    uploader = element.file_uploader.id if shown == "file_uploader" else uploader
                    failed = shown == "alert" and element.alert.format == Alert.ERROR
                    if failed or shown == "exception":
                        raise RuntimeError(str(element)[:200])
                    if shown == "vega_lite_chart":
                        came = time.perf_counter()
                if kind == "script_finished" and message.script_finished == 0 and (
                        came or not answered):
                    return session, uploader, came

        start = BackMsg()
        start.rerun_script.query_string = ""
        await send(start)
        session, uploader, _ = await follow()
        with urllib.request.urlopen(f"http://localhost:{port}/_stcore/health") as response:
            cookie = response.headers["Set-Cookie"]
        token = cookie.partition("_streamlit_xsrf=")[2].partition(";")[0]
        waits = []
        for photo in photos:
            content, began = Path(photo).read_bytes(), time.perf_counter()
            asked = BackMsg()
            asked.file_urls_request.request_id = uuid.uuid4().hex
            asked.file_urls_request.file_names.append(Path(photo).name)
            asked.file_urls_request.session_id = session
            await send(asked)
            while (message := await receive()).WhichOneof("type") != "file_urls_response":
                pass
            urls = message.file_urls_response.file_urls[0]
            await asyncio.to_thread(_upload, f"http://localhost:{port}{urls.upload_url}",
                                    token, Path(photo).name, content)
            info = UploadedFileInfo(file_id=urls.file_id, name=Path(photo).name,
                                    size=len(content), file_urls=urls)
            again = BackMsg()
            state = again.rerun_script.widget_states.widgets.add()
            state.id = uploader
            state.file_uploader_state_value.CopyFrom(FileUploaderState(uploaded_file_info=[info]))
            await send(again)
            _, _, came = await follow(answered=True)
            waits.append(came - began)
        return waits


def _upload(address: str, token: str, name: str, content: bytes) -> None:
    edge = uuid.uuid4().hex
    head = (f'--{edge}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
            "Content-Type: image/jpeg\r\n\r\n")
    body = head.encode() + content + f"\r\n--{edge}--\r\n".encode()
    request = urllib.request.Request(address, body, method="PUT", headers={
        "Content-Type": f"multipart/form-data; boundary={edge}",
        "Cookie": f"_streamlit_xsrf={token}", "X-Xsrftoken": token})
    with urllib.request.urlopen(request, timeout=60):
        pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m helpers.dev.bench_serving")
    parser.add_argument("--run", default="outputs/demo")
    parser.add_argument("--photos", default="data/demo/photos", help="a folder of photos")
    parser.add_argument("--count", type=int, default=2_000, help="photos of the batch")
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--each", type=int, default=10, help="photos of each visitor")
    options = parser.parse_args()
    photos = list_photos([options.photos])
    bench_batch(options.run, [*itertools.islice(itertools.cycle(photos), options.count)])
    bench_page(options.run, photos, options.visitors, options.each)
