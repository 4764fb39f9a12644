"""Networks of Hugging Face's transformers, tiny and with random weights: traced, and rescaled."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from flatmin.symmetry import find_scalings, verify

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

COMMON = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
COMMON |= {"intermediate_size": 24, "max_position_embeddings": 16}
GROUPED = COMMON | {"num_key_value_heads": 1}
VISION = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION |= {"intermediate_size": 24, "image_size": 16, "patch_size": 8}
BART = {"vocab_size": 50, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
BART |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24}
BART |= {"decoder_ffn_dim": 24, "max_position_embeddings": 16}
OPT = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
OPT |= {"ffn_dim": 24, "max_position_embeddings": 16, "word_embed_proj_dim": 16}
GPT2 = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16}
DISTIL = {"vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
T5 = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
SWIN = {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [1, 1]}
SWIN |= {"num_heads": [2, 2], "window_size": 2}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"}
WAVES = {"vocab_size": 12, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
WAVES |= {"intermediate_size": 24, "conv_dim": (8, 8), "conv_kernel": (4, 3)}
WAVES |= {"conv_stride": (2, 2), "num_conv_pos_embeddings": 4, "num_feat_extract_layers": 2}
WAVES |= {"num_conv_pos_embedding_groups": 2}


def words() -> Tensor:
    return torch.randint(5, 50, (2, 6))


def text() -> dict[str, Any]:
    return {"input_ids": words()}


def cached() -> dict[str, Any]:
    return {"input_ids": words(), "use_cache": False}


def pairs() -> dict[str, Any]:
    return {"input_ids": words(), "decoder_input_ids": words(), "use_cache": False}


def picture(side: int = 16) -> dict[str, Any]:
    return {"pixel_values": torch.randn(2, 3, side, side)}


# Class, configuration, settings, inputs, and units that may be rescaled.
Model = tuple[str, str, dict[str, Any], Callable[[], dict[str, Any]], int]
MODELS: dict[str, Model] = {
    "albert": ("AlbertModel", "AlbertConfig", COMMON | {"embedding_size": 8}, text, 40),
    "bart": ("BartForConditionalGeneration", "BartConfig", BART, pairs, 96),
    "bert": ("BertForSequenceClassification", "BertConfig", COMMON, text, 80),
    "bloom": (
        *("BloomForCausalLM", "BloomConfig"),
        {"vocab_size": 50, "hidden_size": 16, "n_layer": 2, "n_head": 2},
        *(cached, 128),
    ),
    "convnext": (
        *("ConvNextForImageClassification", "ConvNextConfig"),
        {"hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2},
        *(lambda: picture(32), 60),
    ),
    "distilbert": ("DistilBertForSequenceClassification", "DistilBertConfig", DISTIL, text, 96),
    "electra": ("ElectraModel", "ElectraConfig", COMMON | {"embedding_size": 8}, text, 72),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", GROUPED | {"head_dim": 8}, cached, 72),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2, cached, 128),
    "gpt neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", COMMON, cached, 140),
    "llama": ("LlamaForCausalLM", "LlamaConfig", GROUPED, cached, 152),
    "mistral": ("MistralForCausalLM", "MistralConfig", GROUPED, cached, 152),
    "opt": ("OPTForCausalLM", "OPTConfig", OPT, cached, 176),
    "phi": ("PhiForCausalLM", "PhiConfig", COMMON, cached, 104),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", GROUPED, cached, 152),
    "resnet": ("ResNetForImageClassification", "ResNetConfig", RESNET, lambda: picture(32), 100),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", COMMON, text, 80),
    "swin": ("SwinForImageClassification", "SwinConfig", SWIN, picture, 144),
    "t5": ("T5ForConditionalGeneration", "T5Config", T5, pairs, 448),
    "vit": ("ViTForImageClassification", "ViTConfig", VISION, picture, 144),
    "wav2vec2": (
        *("Wav2Vec2ForCTC", "Wav2Vec2Config", WAVES),
        *(lambda: {"input_values": torch.randn(2, 200)}, 60),
    ),
}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_what_may_be_rescaled_is_found(name: str) -> None:
    model, config, settings, inputs, units = MODELS[name]
    torch.manual_seed(0)
    network = getattr(transformers, model)(getattr(transformers, config)(**settings))
    network, example = network.eval().double(), inputs()
    example = {
        key: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        for key, value in example.items()
    }
    found = find_scalings(network, example)
    assert not [stop for stop in found.stopped if "no rule" in stop.reason]
    # Counted once; a change of it is a rule gained or lost.
    assert sum(group.size for group in found.groups) == units, str(found)
    for seed in range(20):
        factors = found.sample(torch.Generator().manual_seed(seed))
        assert verify(network, found, factors, example).deviation <= 1e-10


def test_rows_that_the_example_does_not_read_are_not_offered() -> None:
    """A longer text reads other positions: they may not have factors of their own."""
    torch.manual_seed(0)
    network = transformers.DistilBertModel(transformers.DistilBertConfig(**DISTIL))
    network = network.eval().double()
    found = find_scalings(network, text())
    table = "embeddings.position_embeddings.weight"
    assert not any(slot.name == table for group in found.groups for slot in group.slots)
    longer = {name: value.repeat(1, 3) for name, value in text().items()}
    factors = found.sample(torch.Generator().manual_seed(0))
    assert verify(network, found, factors, longer).deviation <= 1e-10
