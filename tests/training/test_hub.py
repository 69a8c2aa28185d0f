"""A folder is enough to sample from: it knows its network, its path and its prediction, and is checked against them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

import interpolants as ip
from models import SiT, create_model
from training import Field, Guidance, sample_ode


def field(path: ip.Path | None = None, prediction: str = "data", **changes: Any) -> Field:
    torch.manual_seed(0)
    model = create_model("SiT-T/2", **{"input_size": (4, 8), "in_channels": 2, "num_classes": 3, **changes}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    return Field(model, path or ip.gvp(), prediction)


PATHS = {
    "linear": ip.linear(),
    "vp": ip.vp(),
    "shifted": ip.shifted(ip.linear(), 3),
    "text": ip.Path("t**p", "1-t**p", p=2),
    "float": ip.Path("t", "1-0.9*t"),
    "kink": ip.Path("t", "sqrt((1-t)**2)"),
    "product": ip.Path("t*(t+1)*exp(t-1)/2", "1-t"),
    "shifted vp": ip.shifted(ip.vp(), 3),
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_a_saved_field_samples_with_no_further_argument(tmp_path: Path, path: ip.Path) -> None:
    saved = field(path)
    saved.save_pretrained(tmp_path)
    loaded = Field.from_pretrained(tmp_path)
    assert (loaded.path, loaded.path.name, loaded.prediction) == (path, path.name, "data")
    Field.from_pretrained(tmp_path, path=path)
    noise, y = torch.randn(2, 2, 4, 8), torch.tensor([0, 3])
    assert torch.equal(sample_ode(loaded, noise, num_steps=3, y=y), sample_ode(saved, noise, num_steps=3, y=y))
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_guidance_and_precision_are_the_callers(tmp_path: Path) -> None:
    field(ip.linear(), "velocity").save_pretrained(tmp_path)
    assert Field.from_pretrained(tmp_path, guidance_scale=2.0).guidance_scale == 2.0
    loaded = Field.from_pretrained(tmp_path, guidance=Guidance(scale=3.0, channels=1), dtype=torch.bfloat16)
    assert (loaded.guidance_scale, loaded.dtype) == (3.0, torch.bfloat16)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rope": True, "swiglu": True, "rms_norm": True, "qk_norm": True},
        {"num_classes": 0, "condition_dim": 3},
        {"learn_sigma": True},
    ],
    ids=str,
)
def test_a_network_alone_is_rebuilt_from_its_arguments(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = field(**changes).model
    assert isinstance(model, SiT)
    model.save_pretrained(tmp_path)
    loaded = SiT.from_pretrained(tmp_path)
    assert loaded.config == model.config
    assert not loaded.training
    for (key, value), (name, expected) in zip(loaded.state_dict().items(), model.state_dict().items(), strict=True):
        assert key == name
        assert torch.equal(value, expected)


def test_the_card_tells_path_prediction_and_licence(tmp_path: Path) -> None:
    tmp_path.joinpath("README.md").write_text("of a past network")
    field(ip.shifted(ip.linear(), 3), "velocity").save_pretrained(tmp_path, license="cc-by-nc-4.0")
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.license, card.data.library_name) == ("cc-by-nc-4.0", "sit-interpolants")
    for part in ("Predicts the velocity", "t/(3 - 2*t)", "noise at t = 0 and data at t = 1", "| depth | 4 |"):
        assert part in card.text
    assert "past" not in card.text


def test_what_is_not_what_was_expected_is_refused(tmp_path: Path) -> None:
    field(ip.gvp(), "noise").save_pretrained(tmp_path)
    Field.from_pretrained(tmp_path, path=ip.gvp(), prediction="noise")
    with pytest.raises(ValueError, match=r"Field.from_pretrained: prediction must be 'noise', as in the folder, got"):
        Field.from_pretrained(tmp_path, prediction="velocity")
    with pytest.raises(ValueError, match=r"Field.from_pretrained: path must be Path"):
        Field.from_pretrained(tmp_path, path=ip.linear())


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_a_folder_with_what_sympy_prints_is_read(tmp_path: Path, path: ip.Path) -> None:
    """So were folders written before; what is read may be another form of the same functions."""
    field(path).save_pretrained(tmp_path)
    file = tmp_path / "path.json"
    meta = json.loads(file.read_text())
    meta["path"] = {"alpha": str(path.alpha.expr), "sigma": str(path.sigma.expr), "name": path.name}
    file.write_text(json.dumps(meta))
    loaded = Field.from_pretrained(tmp_path, path=path).path
    t = torch.linspace(0, 1, 17, dtype=torch.float64)
    torch.testing.assert_close(loaded.alpha(t), path.alpha(t), rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(loaded.sigma(t), path.sigma(t), rtol=1e-15, atol=1e-15)
    with pytest.raises(ValueError, match=r"Field.from_pretrained: path must be Path"):
        Field.from_pretrained(tmp_path, path=path.after("t**2"))


def test_weights_that_the_path_does_not_belong_to_are_refused(tmp_path: Path) -> None:
    field().save_pretrained(tmp_path)
    other = create_model("SiT-T/2", input_size=(4, 8), in_channels=2, num_classes=3)
    other.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"model.safetensors must be the one that path.json was written with"):
        Field.from_pretrained(tmp_path)


@pytest.mark.parametrize("change", [{"format": 2}, {"convention": "data at t = 0"}], ids=str)
def test_another_format_or_convention_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    field().save_pretrained(tmp_path)
    file = tmp_path / "path.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(
        ValueError, match=r"path.json must be of format 1 with x_t = alpha\(t\) data \+ sigma\(t\) noise"
    ):
        Field.from_pretrained(tmp_path)
    file.write_text("{")
    with pytest.raises(ValueError, match=r"path.json must be JSON"):
        Field.from_pretrained(tmp_path)


def test_hostile_text_in_the_path_is_refused(tmp_path: Path) -> None:
    field().save_pretrained(tmp_path)
    file = tmp_path / "path.json"
    meta = json.loads(file.read_text())
    file.write_text(json.dumps(meta | {"path": {"alpha": "__import__('os').system('true')", "sigma": "1-t"}}))
    with pytest.raises(ValueError, match="import"):
        Field.from_pretrained(tmp_path)


def test_a_folder_without_a_path_or_a_network_is_answered(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"must hold path.json, got none"):
        Field.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"SiT.from_pretrained: .* must hold the config.json of a SiT, got none with"):
        SiT.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match=r"Field.save_pretrained: model must be a models.SiT, got function"):
        Field(lambda x, t: x, ip.linear()).save_pretrained(tmp_path)


def test_a_weight_of_another_shape_is_named(tmp_path: Path) -> None:
    model = field().model
    assert isinstance(model, SiT)
    model.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_classes": 4, "qk_norm": True}))
    with pytest.raises(RuntimeError, match=r"(?s)Missing key.*blocks.0.attn.q_norm.weight.*y_embedder.embedding_table"):
        SiT.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="strict must be True"):
        SiT.from_pretrained(tmp_path, strict=False)


def test_uploading_makes_the_repository_and_sends_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, Any] = {}

    class Hub:
        def __init__(self, token: str | None) -> None:
            sent["token"] = token

        def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> Any:
            sent.update(private=private, exist_ok=exist_ok)
            return type("Repo", (), {"repo_id": f"me/{repo_id}"})

        def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> str:
            files = sorted(file.name for file in Path(folder_path).iterdir())
            sent.update(repo=repo_id, files=files, message=commit_message)
            return f"https://hub/{repo_id}"

    monkeypatch.setattr("training.hub.HfApi", Hub)
    address = field().push_to_hub("digits", private=True, token="secret", message="Digits")
    assert address == "https://hub/me/digits"
    files = ["README.md", "config.json", "model.safetensors", "path.json"]
    expected = {"token": "secret", "private": True, "exist_ok": True, "repo": "me/digits", "message": "Digits"}
    assert sent == {**expected, "files": files}


def test_a_repository_is_downloaded_with_the_callers_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    field(ip.linear()).save_pretrained(tmp_path)
    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr("training.hub.snapshot_download", download)
    loaded = Field.from_pretrained("me/digits", revision="v1", local_files_only=True)
    assert loaded.path == ip.linear()
    assert asked == {"name": "me/digits", "revision": "v1", "local_files_only": True}
