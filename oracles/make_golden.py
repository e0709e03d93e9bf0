"""Golden files for the models: tiny Granite and Qwen2 models of transformers, their logits, loss and gradients.

Each case is a folder with config.json and model.safetensors as transformers saves them, and golden.safetensors:
input_ids [B, T] i32, logits [B, T, V], loss [1] (mean next-token cross-entropy over positions 0..T-2) and
grad.<tensor name> of that loss for every parameter. Everything is computed in float64, but for what transformers
does in float32 whatever the model's type (the scan, norms, rotary angles), and stored in float32.

Looking up the padding token gives its embedding no gradient (PyTorch's padding_idx); as a target, and through a tied
head, it is a token like any other.

A sequence of one token has no next token: the mean over no positions is taken to be 0, and so are its gradients.

Usage:  python make_golden.py [--out FOLDER] [--large] [CASE ...]     write the cases (all of them by default)
        python make_golden.py --check FOLDER ...                      recompute existing cases and compare
"""

import argparse
import json
import sys
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GraniteMoeHybridConfig, Qwen2Config

BOUND = 1e-4  # relative, Frobenius norm, of --check


def granite(layers, **changes):
    """layers: a letter for each layer, m (Mamba2) or a (attention)."""
    kinds = {"m": "linear_attention", "a": "full_attention"}
    settings = dict(
        vocab_size=48, hidden_size=16, intermediate_size=24, shared_intermediate_size=24,
        num_hidden_layers=len(layers), layer_types=[kinds[letter] for letter in layers],
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=0, num_experts_per_tok=0,
        mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8, mamba_n_groups=1, mamba_d_conv=4, mamba_expand=2,
        mamba_chunk_size=8, embedding_multiplier=12.0, residual_multiplier=0.246, attention_multiplier=0.3,
        logits_scaling=3.0, position_embedding_type="nope", rms_norm_eps=1e-5, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=None, pad_token_id=None)
    return GraniteMoeHybridConfig(**(settings | changes))


def qwen2(**changes):
    settings = dict(
        vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, rms_norm_eps=1e-6, max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, tie_word_embeddings=True)
    return Qwen2Config(**(settings | changes))


ROPE = {"rope_type": "default", "rope_theta": 1e4}

# name: (configuration, batch, sequence)
CASES = {
    "granite-hybrid": lambda: (granite("mam"), 2, 21),  # the sequence is no multiple of the chunk
    "granite-groups": lambda: (granite("ma", mamba_n_groups=2, time_step_limit=(0.05, 1.5)), 2, 19),
    "granite-long-chunk": lambda: (granite("mm", mamba_chunk_size=64, mamba_d_state=5), 3, 13),
    "granite-untied": lambda: (granite("am", tie_word_embeddings=False), 2, 11),
    "granite-full-heads": lambda: (granite("am", num_key_value_heads=4, mamba_n_heads=2, mamba_d_head=16), 2, 16),
    "granite-pad": lambda: (granite("ma", pad_token_id=3), 2, 9),  # the sequences hold the padding token
    "granite-one-token": lambda: (granite("ma"), 1, 1),
    "granite-rope": lambda: (granite("aa", position_embedding_type="rope", rope_parameters=ROPE), 2, 17),
    "qwen2-tied": lambda: (qwen2(), 2, 15),
    "qwen2-untied": lambda: (qwen2(tie_word_embeddings=False, num_key_value_heads=1, hidden_size=24), 1, 23),
}

# Larger and odder, for checks by hand: not part of the repository.
LARGE = {
    "large-t130": lambda: (granite("mmam", vocab_size=500, hidden_size=64, shared_intermediate_size=80, mamba_n_heads=8,
                                   mamba_d_head=16, mamba_d_state=16, mamba_n_groups=4, mamba_chunk_size=64), 3, 130),
    "large-t17": lambda: (granite("mam", vocab_size=500, hidden_size=96, shared_intermediate_size=100, mamba_n_heads=12,
                                  mamba_d_head=16, mamba_d_state=32, mamba_n_groups=4, mamba_chunk_size=256,
                                  num_attention_heads=6, num_key_value_heads=6, tie_word_embeddings=False), 2, 17),
    "large-t3": lambda: (granite("mama", vocab_size=500, hidden_size=64, shared_intermediate_size=48, mamba_n_heads=4,
                                 mamba_d_head=32, mamba_d_state=20, mamba_n_groups=2, mamba_chunk_size=256,
                                 position_embedding_type="rope", rope_parameters=ROPE), 1, 3),
    "large-t2": lambda: (qwen2(vocab_size=500, hidden_size=96, intermediate_size=100, num_hidden_layers=3,
                               num_attention_heads=6, num_key_value_heads=3, tie_word_embeddings=False), 4, 2),
    "large-t1": lambda: (granite("mmaa", vocab_size=500, hidden_size=64, mamba_n_heads=8, mamba_d_head=16,
                                 mamba_n_groups=4, num_key_value_heads=1), 2, 1),
}


def fill(model, seed):
    """Values away from the initial ones for every parameter, so that every gradient says something."""
    generator = torch.Generator().manual_seed(seed)

    def normal(weight, mean, std):
        return mean + std * torch.randn(weight.shape, generator=generator)

    for name, weight in model.named_parameters():
        if name.endswith("A_log"):
            value = normal(weight, 0.5, 0.8)
        elif name.endswith("dt_bias"):
            value = normal(weight, -0.8, 0.5)
        elif name.endswith(".D") or "norm" in name:
            value = normal(weight, 1.0, 0.2)
        elif name.endswith("bias"):
            value = normal(weight, 0.0, 0.2)
        elif "conv1d" in name:
            value = normal(weight, 0.0, 0.5)
        else:
            value = normal(weight, 0.0, 1.5 / weight.shape[-1] ** 0.5)
        weight.data.copy_(value)


def golden(model, ids):
    """What golden.safetensors holds, with model already in float64."""
    model.zero_grad(set_to_none=True)
    logits = model(input_ids=ids.long(), use_cache=False).logits
    if ids.shape[1] > 1:
        loss = F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1).long())
    else:
        loss = 0.0 * logits.square().sum()
    loss.backward()
    tensors = {"input_ids": ids.int(), "logits": logits.detach().float(), "loss": loss.detach().float().reshape(1)}
    for name, weight in model.named_parameters():
        tensors[f"grad.{name}"] = weight.grad.float()
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").double().eval()


def write(folder, case, seed):
    config, batch, sequence = case()
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fill(model, seed)
    model.save_pretrained(folder)
    for extra in folder.glob("generation_config.json"):
        extra.unlink()
    ids = torch.randint(config.vocab_size, (batch, sequence), generator=torch.Generator().manual_seed(seed + 1))
    if config.pad_token_id is not None:
        ids[:, 2] = config.pad_token_id
    tensors = golden(load(folder), ids)
    if sequence > 3:
        silent = [name for name, tensor in tensors.items() if name.startswith("grad.") and tensor.norm() < 1e-7]
        assert not silent, f"{folder.name}: gradients that test nothing: {silent}"
    save_file(tensors, folder / "golden.safetensors")
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)
    sizes = [path.stat().st_size for path in folder.iterdir()]
    print(f"{folder.name}: B {batch}, T {sequence}, loss {tensors['loss'].item():.4f}, {sum(sizes) / 1e3:.0f} kB")


def check(folder):
    """Recomputes a case from its model; true where names, shapes and values agree."""
    stored = load_file(folder / "golden.safetensors")
    found = golden(load(folder), stored["input_ids"])
    if stored.keys() != found.keys():
        print(f"{folder}: names differ: {sorted(stored.keys() ^ found.keys())}")
        return False
    worst, at = 0.0, "input_ids"
    for name, tensor in stored.items():
        if (tensor.shape, tensor.dtype) != (found[name].shape, found[name].dtype):
            print(f"{folder}: {name} is {tensor.dtype} {tuple(tensor.shape)}")
            return False
        error = (tensor.double() - found[name].double()).norm() / tensor.double().norm().clamp_min(1e-30)
        if error > worst:
            worst, at = error.item(), name
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    print(f"{folder}: {layers} layers, {len(stored)} tensors, worst relative difference {worst:.1e} at {at}")
    return worst <= BOUND


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="cases to write, or folders to check")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--large", action="store_true", help="the larger cases; needs --out outside the repository")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.check:
        sys.exit(0 if all([check(Path(folder)) for folder in arguments.names]) else 1)
    cases = LARGE if arguments.large else CASES
    for name, case in cases.items():
        if not arguments.names or name in arguments.names:
            write(arguments.out / name, case, zlib.crc32(name.encode()))


if __name__ == "__main__":
    main()
