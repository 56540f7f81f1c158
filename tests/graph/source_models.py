"""Small modules with inputs and outputs of many forms; written to a file by the tests."""

CODE = '''
import dataclasses, math
from collections import OrderedDict
import torch
from torch import nn
from torch.nn import functional as F

class Joined(nn.Module):
    """A dictionary and a tuple in; nested ones out, with what is no tensor."""
    def __init__(self):
        super().__init__()
        self.proj, self.words = nn.Linear(4, 3), nn.Embedding(11, 4)
    def forward(self, batch, states, scale=None):
        y = self.proj(batch["x"] + self.words(batch["ids"])) + states[0] * states[1]
        return {"y": y, "parts": [y.sum(-1), (y * 2,)], "none": None, "count": 3}

@dataclasses.dataclass
class Out:
    logits: torch.Tensor
    hidden: torch.Tensor

class Encoder(nn.Module):
    """Token numbers, with an optional mask; a dataclass out."""
    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(100, 16), nn.Embedding(64, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 5)
    def forward(self, input_ids, attention_mask=None):
        x = self.words(input_ids) + self.places(torch.arange(input_ids.shape[1]))
        ignored = None if attention_mask is None else attention_mask == 0
        h = self.layer(x, src_key_padding_mask=ignored)
        return Out(self.head(h[:, 0]), h)

class ModelOutput(OrderedDict):
    def __getattr__(self, name):
        return self[name]

class Speech(nn.Module):
    """A number and a tensor that stay the same; an output of keys and attributes."""
    def __init__(self):
        super().__init__()
        self.conv, self.rnn = nn.Conv1d(1, 4, 9, padding=4), nn.GRU(4, 6, batch_first=True)
    def forward(self, x, sr: int, gain: torch.Tensor):
        if sr not in (8000, 16000):
            raise ValueError(f"unknown rate {sr}")
        h = self.rnn(self.conv(x).transpose(1, 2))[0]
        return ModelOutput(y=h * gain * (sr / 16000))

class Variadic(nn.Module):
    def forward(self, *xs, **more):
        return xs[0] + xs[1] * more["k"]

class Through(nn.Module):
    """Returns its input, and one tensor twice."""
    def forward(self, x, y):
        z = x + y
        return x, z, z

class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.rnn = nn.Embedding(50, 8), nn.LSTM(8, 12, 2, batch_first=True)
        self.head = nn.Linear(12, 50)
    def forward(self, tokens):
        h, (a, b) = self.rnn(self.words(tokens))
        return self.head(h.reshape(-1, 12)), a, b

class Towers(nn.Module):
    """Two inputs whose batches need not be equal."""
    def __init__(self):
        super().__init__()
        self.image, self.words = nn.Conv2d(3, 8, 3), nn.Embedding(30, 8)
    def forward(self, image, text_ids):
        return self.image(image).mean((2, 3)) @ self.words(text_ids).mean(1).T

class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, 1)
        self.c = nn.Conv2d(16, 2, 3, padding=1)
    def forward(self, x):
        a = self.a(x)
        up = F.interpolate(self.b(a), size=a.shape[2:], mode="bilinear", align_corners=False)
        return self.c(torch.cat([a, up], 1))

class Same(nn.Module):
    """Padding as TensorFlow has it, computed from the size."""
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8)
    def forward(self, x):
        height, width = x.shape[-2:]
        h = max((math.ceil(height / 2) - 1) * 2 + 3 - height, 0)
        w = max((math.ceil(width / 2) - 1) * 2 + 3 - width, 0)
        return self.bn(self.conv(F.pad(x, [w // 2, w - w // 2, h // 2, h - h // 2])))

class Pooled(nn.Module):
    """Pooling over the whole picture, by its size."""
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
    def forward(self, x):
        x = self.conv(x)
        return x * F.avg_pool2d(x, x.shape[2:])

class Noise(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
    def forward(self, x):
        return self.fc(x) + torch.randn_like(x)

class Nothing(nn.Module):
    def forward(self, x):
        return 3

class Steps(nn.Module):
    """A loop in Python, of which the exporter writes as many turns as the example has steps."""
    def forward(self, x):
        state = torch.zeros_like(x[:, 0])
        for step in range(x.shape[1]):
            state = torch.tanh(state + x[:, step])
        return state

class Step(nn.Module):
    """One step of a recurrent network: the batch is the second axis of its states."""
    def __init__(self, layers=2):
        super().__init__()
        self.proj, self.rnn = nn.Linear(6, 8), nn.LSTM(8, 8, layers)
    def forward(self, x, h, c):
        y, (h, c) = self.rnn(self.proj(x).unsqueeze(0), (h, c))
        return y[0], h, c

class StateFirst(Step):
    def forward(self, h, c, x):
        return super().forward(x, h, c)

def sized(channels=2, *, bias=True):
    return nn.Conv2d(3, channels, 1, bias=bias)

def downloads():
    import urllib.request
    urllib.request.urlopen("http://nowhere.invalid/weights.pth")
'''
