"""A small GPT on a directory of text files that is streamed, packed, and dealt to workers that may come and go.

python examples/streamed_text.py TEXTS                # one worker in this process: plain Python, for a debugger
python examples/streamed_text.py TEXTS --workers 4    # on Ray, with DiLoCo's settings; go on with --resume

TEXTS is a directory of .txt files, or any path that raysgd_local.sources reads. Tokens are bytes. Each line is trained
on once an epoch, whichever workers die; docs/data.md says how.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from ray.train import RunConfig, ScalingConfig
from torch import nn
from torch.nn import functional as F

from raysgd_local import Algorithm, FixedPeriod, LocalSGDTrainer, OuterOptimizer, get_context
from raysgd_local.config import Checkpoints
from raysgd_local.sources import Pack

VOCABULARY, NEWLINE = 256, 10


class Gpt(nn.Module):
    """A decoder of bytes: (B, T) token numbers to (B, T, 256) logits."""

    def __init__(self, length: int, width: int = 128, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, width), nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device)
        hidden = self.tokens(tokens) + self.positions(torch.arange(length, device=tokens.device))
        logits: torch.Tensor = self.head(self.blocks(hidden, mask=mask, is_causal=True))
        return logits


def bytes_of(line: str) -> list[int]:
    """A line's tokens."""
    return list(line.encode())


def train_loop(config: dict[str, Any]) -> None:
    """What every worker runs."""
    ctx = get_context()
    model = ctx.prepare_model(Gpt(config["length"]))
    ctx.prepare_optimizer(torch.optim.AdamW(model.parameters(), lr=config["lr"]), clip_grad_norm=1.0)
    pack = Pack(config["length"] + 1, separator=NEWLINE)
    for epoch in ctx.epochs(config["epochs"]):
        total, steps = 0.0, 0
        for tokens in ctx.batches(config["texts"], batch_size=8, transform=[bytes_of, pack]):
            logits = model(tokens[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            loss.backward()
            ctx.step(loss)
            total, steps = total + loss.item(), steps + 1
        if ctx.rank == 0 and steps:
            ctx.log(epoch=epoch, loss=round(total / steps, 4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", help="a directory of .txt files")
    parser.add_argument("--workers", type=int, default=0, help="Ray workers; without, one in this process")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--length", type=int, default=128, help="tokens of a sample")
    parser.add_argument("--period", type=int, default=50, help="local steps between averagings")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--storage", default="runs")
    parser.add_argument("--resume", action="store_true", help="go on with the run that was interrupted")
    options = parser.parse_args()
    names = ("texts", "epochs", "length", "lr")
    config = {name: getattr(options, name) for name in names}
    if not options.workers:
        train_loop(config)
        return
    diloco = OuterOptimizer("SGD", 0.7, {"momentum": 0.9, "nesterov": True})
    result = LocalSGDTrainer(
        train_loop_per_worker=train_loop,
        train_loop_config=config,
        algorithm=Algorithm(schedule=FixedPeriod(options.period), outer=diloco),
        scaling_config=ScalingConfig(num_workers=(1, options.workers)),
        run_config=RunConfig(name="streamed-text", storage_path=options.storage),
        checkpoints=Checkpoints(every_s=10.0),
    ).fit(resume="auto" if options.resume else None)
    print(result.metrics["train_loss"])
    print(result.path)


if __name__ == "__main__":
    main()
