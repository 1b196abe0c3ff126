"""The chart of a release names the release's images, so that nobody has to look digests up."""

from __future__ import annotations

import shutil

import pytest
import yaml

from helm.tools import stamp
from tests.support import chart

GATEWAY = "ghcr.io/shop/vision/gateway@sha256:" + "1" * 64
ENGINE = "registry.example.com:5000/engine@sha256:" + "2" * 64


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(chart.CHART, tmp_path / "qwen3-vl")
    return tmp_path / "qwen3-vl"


def words(folder, gateway=GATEWAY, engine=ENGINE):
    return ["--chart", str(folder), "--version", "1.2.3", "--gateway", gateway, "--engine", engine]


def test_a_released_chart_needs_no_digest_of_its_own_images(copy):
    assert stamp.main(words(copy)) == 0
    values = {"redis": {"mode": "none"}, "pools": {"l4": {"profile": "l4"}}}
    pods = chart.pod_templates(chart.parse(chart.render_text(values, chart=copy)))
    images = {one["image"] for pod in pods.values() for one in chart.containers(pod)}
    assert images == {GATEWAY, ENGINE}


def test_nothing_else_is_changed(copy):
    before = yaml.safe_load((copy / "values.yaml").read_text())
    stamp.main(words(copy))
    after = yaml.safe_load((copy / "values.yaml").read_text())
    for section, image in (("gateway", GATEWAY), ("engine", ENGINE)):
        repository, _, digest = image.partition("@")
        changed = {"repository": repository, "tag": "1.2.3", "digest": digest}
        assert after[section]["image"] == before[section]["image"] | changed
        before[section]["image"] = after[section]["image"]
    assert after == before


@pytest.mark.parametrize(
    "image", ["ghcr.io/shop/gateway:1.2.3", "ghcr.io/shop/gateway@sha256:12", "@sha256:" + "1" * 64, ""]
)
def test_an_image_without_a_whole_digest_is_refused(copy, capsys, image):
    before = (copy / "values.yaml").read_text()
    assert stamp.main(words(copy, gateway=image)) == 1
    assert "is no image by digest" in capsys.readouterr().err
    assert (copy / "values.yaml").read_text() == before


def test_another_values_file_is_told(copy, capsys):
    (copy / "values.yaml").write_text("gateway: {}\n")
    assert stamp.main(words(copy)) == 1
    assert "values.yaml has no gateway.image" in capsys.readouterr().err
