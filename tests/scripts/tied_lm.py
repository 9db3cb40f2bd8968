"""A causal language model with tied embeddings, whose gradients accumulate over two batches."""

from __future__ import annotations

import torch
from fingerprint import fingerprint
from torch import Tensor, nn
from torch.nn import functional as F

WORDS, WIDTH, HEADS = 11, 8, 2


class FusedBlock(nn.Module):
    """Attention by one packed projection and the fused kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Linear(16, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        parts = self.qkv(self.norm1(x)).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(*parts.unbind(0), dropout_p=0.1, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.mlp(self.norm2(x))


class StockBlock(nn.Module):
    """Attention by torch's own module."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, 0.1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return x + self.attention(y, y, y, attn_mask=mask, is_causal=True, need_weights=False)[0]


class LanguageModel(nn.Module):
    """Embedding, blocks, and the embedding again as the head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.blocks = nn.Sequential(FusedBlock(), StockBlock())
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.blocks(self.embedding(words)))


torch.manual_seed(2)
model = LanguageModel()
optimizer = torch.optim.AdamW(model.parameters(), 0.01)
for batch in range(6):
    text = torch.randint(WORDS, (2, 6))
    loss = F.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
    (loss / 2).backward()
    if batch % 2:
        optimizer.step()
        optimizer.zero_grad()
    print(batch, loss.item())
print(fingerprint(model))
