# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # From two arrays to a mask, and on without the camera
#
# Open this file in VS Code, or as a notebook: `pip install jupytext notebook`, then `jupytext --to ipynb
# from_arrays_to_a_mask.py`. It needs the package without extras: no ROS, no GPU, no torch.

# %%
import cv2
import numpy as np

from anyseg_core import Segmenter, Sensor, SensorFrame
from anyseg_core.injection import degrade
from anyseg_core.runtime.metrics import ConfusionMatrix

# %% [markdown]
# ## A scene
#
# Yours comes from files or a driver: RGB as uint8, depth in metres as float32, both of one moment and one view. Here a
# grey road runs to a horizon below a blue sky.

# %%
height, width = 240, 320
rows = np.arange(height)[:, None]
is_road = np.broadcast_to(rows > height // 2, (height, width))
rgb = np.where(is_road[..., None], (90, 90, 95), (120, 160, 220)).astype(np.uint8)
rgb += np.random.default_rng(0).integers(0, 12, rgb.shape, np.uint8)  # a sensor's noise
metres = np.where(is_road, 1.5 * height / np.maximum(rows - height // 2, 1), 0).astype(
    np.float32
)  # 0: nothing measured

# %% [markdown]
# ## A mask
#
# `Segmenter.open` takes the name of a bundled student or a student's folder, as `anyseg export` writes it.

# %%
segmenter = Segmenter.open("rgbd_sim")
mask = segmenter.segment_arrays(camera=rgb, depth=metres)
names = [entry.name for entry in segmenter.card.classes]
values, pixels = np.unique(mask.labels, return_counts=True)
for value, count in sorted(zip(values, pixels, strict=True), key=lambda pair: -pair[1])[:3]:
    print(f"{names[value]}: {100 * count / mask.labels.size:.0f} % of the picture")
print(f"mean confidence {mask.confidence.mean() / 255:.2f}, made from {', '.join(mask.modalities)}")

# %% [markdown]
# ## The camera dies
#
# Leave it out, and the same student goes on with what is left. How much of the mask stays?

# %%
alone = segmenter.segment_arrays(depth=metres)
print(f"{', '.join(alone.modalities)} alone: {100 * (alone.labels == mask.labels).mean():.0f} % of the pixels agree")

# %% [markdown]
# ## A broken camera
#
# The faults that `anyseg inject` makes on messages can be had on arrays.

# %%
camera = Sensor("camera")
blurred = degrade(SensorFrame(camera, rgb, 0), "blur", np.random.default_rng(0), sigma_px=8)
broken = segmenter.segment_arrays(camera=blurred.data, depth=metres)
matrix = ConfusionMatrix(len(names))
matrix.add(mask.labels, broken.labels)  # the undisturbed mask stands for the truth
print(f"blurred: {100 * matrix.pixel_accuracy():.0f} % of the pixels agree")

# %% [markdown]
# ## A picture

# %%
palette = np.array([entry.color for entry in segmenter.card.classes], np.uint8)
labels, confidence = mask.resized(height, width)
overlay = cv2.addWeighted(rgb, 0.5, palette[labels], 0.5, 0)
cv2.imwrite("mask.png", overlay[..., ::-1])
