"""Networks in other runtimes and in other code: run there, beside ours."""

import dataclasses
import functools
import importlib.util
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx

from experiments.__main__ import main
from shufflenet_jax import InputError, Trained, fold, load, load_torch, save, zoo
from shufflenet_jax.data import IMAGENET
from shufflenet_jax.runtimes import agreement
from shufflenet_jax.runtimes.stablehlo import stablehlo

UNITS = {"repeats": [2, 1, 1], "stem": {"stride": 2, "max_pool": True}}
GIVEN = {"channels": [24, 48, 96], "conv1_channels": 12, **UNITS}
SHUFFLE = {"width": 0.25, **UNITS}
NAMES = tuple("abcde")


def a_network(name="shufflenet", arguments=SHUFFLE, size=32, provenance=None):
    """With weights and statistics of which none is that of a fresh network."""
    network = zoo.build(name, arguments, num_classes=len(NAMES))
    random = np.random.default_rng(0)
    ranges = {"var": (0.5, 2), "scale": (0.5, 1)}

    def drawn(path, leaf):
        if leaf.ndim > 1:
            deviation = (2 / np.prod(leaf.shape[:-1])) ** 0.5
            return random.normal(0, deviation, leaf.shape).astype(np.float32)
        low, high = ranges.get(path[-1].key, (-0.2, 0.2))
        return random.uniform(low, high, leaf.shape).astype(np.float32)

    state = nnx.state(network, (nnx.Param, nnx.BatchStat))
    values = jax.tree.map_with_path(drawn, nnx.to_pure_dict(state))
    nnx.replace_by_pure_dict(state, jax.device_put(values))
    nnx.update(network, state)
    preprocessing = dataclasses.replace(IMAGENET, image_size=size)
    return Trained(network, preprocessing, NAMES, 3, name, arguments, provenance or {})


@functools.cache
def the_network():
    return a_network()


@functools.cache
def the_logits(batch):
    """Of drawn images: these, and what the network says of them."""
    images = np.random.default_rng(1).normal(size=(batch, 32, 32, 3)).astype(np.float32)
    return images, np.asarray(jax.jit(lambda images: the_network().network(images))(images))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    place = tmp_path_factory.mktemp("exported") / "saved"
    save(the_network(), place)
    return place


def run(*arguments):
    return main([str(each) for each in arguments])


def onnx_module():
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason="pip install -e '.[export]'")
    from shufflenet_jax.runtimes import onnx_graph, onnx_runtime

    return onnx_graph, onnx_runtime


def need_flatbuffers():
    pytest.importorskip("flatbuffers", reason="pip install -e '.[export]'")


slow = pytest.mark.slow
NETWORKS = [
    ("shufflenet", {**SHUFFLE, "groups": 8}, 32),
    ("shufflenet_ported", {**GIVEN, "inverse_shuffle": True, "branch_first": True}, 32),
    pytest.param("shufflenet_se", {"width": 1.0, "groups": 4, **UNITS}, 32, marks=slow),
    pytest.param(
        "shufflenet",
        {**SHUFFLE, "shuffle": False, "stem": {"stride": 1, "max_pool": False}},
        16,
        marks=slow,
    ),
    pytest.param("vgg_like", {"mflops": 13, **UNITS}, 32, marks=slow),
    pytest.param("resnet", {"mflops": 13, **UNITS}, 32, marks=slow),
    pytest.param("resnext", {"mflops": 13, **UNITS}, 32, marks=slow),
    pytest.param("xception_like", {"mflops": 13, **UNITS}, 32, marks=slow),
    pytest.param("mobilenet_v1", {"width": 0.25}, 32, marks=slow),
    pytest.param("mobilenet_v2", {"width": 0.25}, 32, marks=slow),
    pytest.param("squeezenet", {}, 65, marks=slow),
    pytest.param("googlenet", {}, 63, marks=slow),
    pytest.param("resnet50", {}, 32, marks=slow),
    pytest.param("alexnet", {}, 224, marks=slow),
    pytest.param("alexnet_one_tower", {}, 224, marks=slow),
    pytest.param("vgg16", {}, 224, marks=slow),
]


@pytest.mark.parametrize(("name", "arguments", "size"), NETWORKS)
def test_onnx_computes_the_same(name, arguments, size):
    """In ONNX Runtime, with batches of 1 and of 3 by one graph."""
    _, onnx_runtime = onnx_module()
    content, difference = onnx_runtime.onnx(a_network(name, arguments, size))
    assert difference < 2e-5
    assert content


def test_the_graph_has_nothing_that_it_does_not_need():
    """A convolution for each of ours, with its bias; a shuffle is reshape, transpose, reshape."""
    onnx_graph, _ = onnx_module()
    import onnx

    trained = a_network("shufflenet", {**SHUFFLE, "groups": 8})
    model = onnx.load_from_string(onnx_graph.graph(trained))
    kinds = [node.op_type for node in model.graph.node]
    units = sum(UNITS["repeats"])
    assert kinds.count("Conv") == 1 + 3 * units
    assert kinds.count("Transpose") == units
    assert kinds.count("Reshape") == 2 * units
    assert kinds.count("AveragePool") == kinds.count("Concat") == 3
    assert set(kinds) == {
        *("Conv", "Relu", "MaxPool", "Reshape", "Transpose", "AveragePool", "Concat", "Add"),
        *("GlobalAveragePool", "Flatten", "Gemm"),
    }
    for number, kind in enumerate(kinds):
        if kind == "Transpose":
            assert kinds[number - 1] == kinds[number + 1] == "Reshape"
    (given,) = model.graph.input
    assert given.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert json.loads({each.key: each.value for each in model.metadata_props}["labels"]) == [*NAMES]


def test_what_onnx_has_not_is_named():
    onnx_graph, _ = onnx_module()
    with pytest.raises(InputError, match="no ONNX of LeNet5: export to stablehlo"):
        onnx_graph.graph(a_network("lenet5", {}))
    with pytest.raises(InputError, match="images of 16x16 are scaled up, or too small"):
        onnx_graph.graph(a_network("squeezenet", {}, 16))
    trained = the_network()
    folded = dataclasses.replace(trained, network=fold(trained.network))
    with pytest.raises(InputError, match="folded already"):
        onnx_graph.graph(folded)


def test_stablehlo_runs_without_this_package(saved, tmp_path):
    """In a process that cannot import it, with a batch that was not tried."""
    need_flatbuffers()
    file = tmp_path / "network.stablehlo"
    assert run("export", saved, "--to", "stablehlo", "--out", file) == 0
    images, expected = the_logits(5)
    np.save(tmp_path / "images.npy", images)
    code = """
import sys
sys.modules["shufflenet_jax"] = sys.modules["experiments"] = sys.modules["flax"] = None
import jax, numpy as np
from jax import export
network = export.deserialize(bytearray(open("network.stablehlo", "rb").read()))
np.save("logits.npy", network.call(np.load("images.npy")))
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-4, atol=1e-4)
    described = json.loads((tmp_path / "network.stablehlo.json").read_text())
    assert described["labels"] == [*NAMES]
    assert described["images"] == ["batch", 32, 32, 3]


def test_folding_takes_all_normalisation_out():
    from jax import export

    need_flatbuffers()
    content, difference = stablehlo(the_network())
    assert 0 < difference < 2e-5
    program = export.deserialize(bytearray(content)).mlir_module()
    assert "rsqrt" not in program


def test_what_computes_otherwise_is_refused(saved, tmp_path, monkeypatch, capsys):
    trained = the_network()
    right = jax.jit(lambda images: trained.network(images))
    with pytest.raises(InputError, match=r"differs from the network by .* of the largest logit"):
        agreement.difference(trained, lambda images: np.asarray(right(images)) * 1.001)
    with pytest.raises(InputError, match="by nan"):
        agreement.difference(trained, lambda images: np.asarray(right(images)) * np.nan)
    need_flatbuffers()
    monkeypatch.setattr("shufflenet_jax.runtimes.stablehlo.fold", lambda network: twice(network))
    assert run("export", saved, "--to", "stablehlo", "--out", tmp_path / "a") == 2
    assert "nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def twice(network):
    changed = nnx.clone(network)
    changed.classifier.kernel[...] = 2 * changed.classifier.kernel[...]
    return changed


def test_the_hub_form_has_a_card_with_its_numbers(tmp_path, capsys):
    provenance = {
        "trained_by": "shufflenet_jax",
        "seed": "0",
        "data": {"name": "folder:pets"},
        "result": {"top1_error": 12.345, "top5_error": 0.0, "loss": 0.4, "examples": 120},
    }
    save(a_network(provenance=provenance), tmp_path / "a")
    assert run("export", tmp_path / "a", "--to", "hub", "--out", tmp_path / "b") == 0
    card = (tmp_path / "b" / "README.md").read_text()
    assert "On the 120 test images of folder:pets" in card
    assert "top-1 error 12.35%" in card or "top-1 error 12.34%" in card
    assert "(seed 0)" in card
    assert load(tmp_path / "b").provenance == provenance
    assert run("export", tmp_path / "a", "--to", "hub", "--out", tmp_path / "b") == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize("end", [".safetensors", pytest.param(".pth", marks=slow)])
def test_back_to_the_code_that_it_is_of(end, tmp_path, capsys):
    """megvii's own code loads it, strictly, and says the same."""
    torch = pytest.importorskip("torch", reason="pip install -e '.[parity]'")
    import megvii
    from test_porting import SMALL, assert_close, bgr, ours, pixels, randomise, theirs

    model = randomise(megvii.ShuffleNetV1(3, 0.5, **SMALL))
    trained = load_torch(model.state_dict())
    save(dataclasses.replace(trained), tmp_path / "a")
    file = tmp_path / f"state{end}"
    assert run("export", tmp_path / "a", "--to", "torch", "--out", file) == 0
    assert "for the code of megvii" in capsys.readouterr().out
    other = megvii.ShuffleNetV1(3, 0.5, **SMALL).eval()
    if end == ".pth":
        other.load_state_dict(torch.load(file, weights_only=True))
    else:
        from safetensors.torch import load_file

        other.load_state_dict(load_file(file))
    images = pixels(32)
    assert_close(ours(load(tmp_path / "a"), images), theirs(other, bgr(images)))
    assert ours(load_torch(file), images) == pytest.approx(ours(trained, images))


def test_mistakes_are_named(saved, tmp_path, capsys, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *rest: None if name == "onnxruntime" else find_spec(name, *rest),
    )
    (tmp_path / "there").write_text("mine")
    for arguments, message in (
        (("--to", "onnx"), "needs onnx"),
        (("--to", "stablehlo", "--out", tmp_path / "there"), "is there already"),
        (("--to", "hub", "--layout", "megvii"), "--layout is for --to torch"),
        (("--to", "onnx", "--push", "me/a"), "--push is for --to hub"),
        (("--to", "torch"), "no code for PyTorch that is known here has this network"),
        (("--to", "torch", "--layout", "megvii"), "classifier.0.bias is not zero"),
    ):
        assert run("export", saved, *arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert (tmp_path / "there").read_text() == "mine"
