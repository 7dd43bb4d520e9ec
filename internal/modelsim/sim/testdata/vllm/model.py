"""Writes a model that needs no download: a random llama with two layers and a tokenizer in which each byte is a token.

usage: model.py FOLDER [POSITIONS]
"""
import json, pathlib, sys
from tokenizers import Tokenizer, models, pre_tokenizers, decoders
from transformers import PreTrainedTokenizerFast, LlamaConfig

out = pathlib.Path(sys.argv[1])
positions = int(sys.argv[2]) if len(sys.argv) > 2 else 4096
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
vocab = {c: i for i, c in enumerate(alphabet)}
vocab["<s>"], vocab["</s>"] = 256, 257
tok = Tokenizer(models.BPE(vocab=vocab, merges=[]))
tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
tok.decoder = decoders.ByteLevel()
fast = PreTrainedTokenizerFast(tokenizer_object=tok, bos_token="<s>", eos_token="</s>")
fast.chat_template = ("{% for m in messages %}\n{{ m.role }}\n{{ m.content }}{% endfor %}")
fast.save_pretrained(out)
LlamaConfig(architectures=["LlamaForCausalLM"], hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, head_dim=32, vocab_size=258, max_position_embeddings=positions, bos_token_id=256, eos_token_id=257,
            torch_dtype="float32").save_pretrained(out)
# A random LoRA adapter
import torch
from safetensors.torch import save_file
for name in ("sql", "law"):
    d = out.parent / name
    d.mkdir(exist_ok=True)
    t = {}
    for l in range(2):
        for p in ("q_proj", "v_proj"):
            k = f"base_model.model.model.layers.{l}.self_attn.{p}"
            t[k + ".lora_A.weight"] = torch.randn(8, 64) * .01
            t[k + ".lora_B.weight"] = torch.randn(64, 8) * .01
    save_file(t, d / "adapter_model.safetensors")
    (d / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"],
        "base_model_name_or_path": "tiny", "bias": "none", "task_type": "CAUSAL_LM"}))
