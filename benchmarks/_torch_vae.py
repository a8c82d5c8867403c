"""An epoch of PyTorch whenever a line comes, its seconds in return; an interpreter of its own.

demo: the training loop of the original's demo as it stands (relaxit, demo/vae_straight_through_
bernoulli.py), but that its images come from memory as MNIST's do there: PIL, then ToTensor.
memory: the same networks and method over tensors, without a loader or a number read back.
"""

import sys
import time

import numpy as np
import torch
from PIL import Image
from relaxit.distributions import StraightThroughBernoulli
from torch import nn, optim
from torch.nn import functional as F
from torchvision import transforms

BATCH = 128


class Images(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images, self.transform = images, transforms.ToTensor()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.images[i].numpy())), 0


def networks():
    encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 20))
    decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784))
    parameters = [*encoder.parameters(), *decoder.parameters()]
    return encoder, decoder, optim.Adam(parameters, lr=1e-3)


def demo(images):
    encoder, decoder, optimizer = networks()
    loader = torch.utils.data.DataLoader(Images(images), batch_size=BATCH, shuffle=True)

    def loss_function(recon_x, x, probs, prior=0.5, eps=1e-10):
        BCE = F.binary_cross_entropy(recon_x, x.view(-1, 784), reduction="sum")
        t1 = probs * ((probs + eps) / prior).log()
        t2 = (1 - probs) * ((1 - probs + eps) / (1 - prior)).log()
        return BCE + torch.sum(t1 + t2, dim=-1).sum()

    def epoch():
        train_loss = 0
        for data, _ in loader:
            optimizer.zero_grad()
            q_z = StraightThroughBernoulli(logits=encoder(data.view(-1, 784)))
            probs = q_z.probs
            loss = loss_function(torch.sigmoid(decoder(q_z.rsample())), data, probs)
            loss.backward()
            train_loss += loss.item()
            optimizer.step()

    return epoch


def memory(images):
    encoder, decoder, optimizer = networks()
    x = images.reshape(len(images), -1).float() / 255

    def epoch():
        for index in torch.randperm(len(x))[: len(x) // BATCH * BATCH].view(-1, BATCH):
            data = x[index]
            optimizer.zero_grad(set_to_none=True)
            logits = encoder(data)
            probs = torch.sigmoid(logits)
            z = torch.bernoulli(probs).detach() + probs - probs.detach()
            loss = F.binary_cross_entropy_with_logits(decoder(z), data, reduction="sum")
            entropy = F.binary_cross_entropy_with_logits(logits, probs, reduction="sum")
            (loss - entropy).backward()  # KL to a fair coin, but for its constant
            optimizer.step()

    return epoch


if __name__ == "__main__":
    images = 255 * torch.from_numpy(np.load(sys.argv[1])).view(-1, 28, 28)
    epochs = {"demo": demo(images), "memory": memory(images)}
    print(torch.__version__, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        epochs[line.strip()]()
        print(time.perf_counter() - start, flush=True)
