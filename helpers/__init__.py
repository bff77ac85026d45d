"""Image classification by transfer learning: the logic behind the numbered notebooks.

Importing this package loads nothing heavy; every module imports what it needs. The modules
form one line, each importing only from those before it:

    errors, files, colab, recipe, run, demo, archives, cifar, layouts, sources, images, pixels,
    inspection, copies, checks, splits, backbones, processes, progress, features, cache,
    openvino_engine, engines, batches, streaming, estimate, extraction, augmentation,
    checklist, heads, projection, evaluation, comparison, charts, galleries, report

`batch` runs the notebooks headless, `bench` and `bench_extraction` measure, and `publish` puts
a run's outputs into the notebooks that are committed.
"""

import warnings

# Some libraries ask for notebook widgets, but saved widgets make a notebook invalid.
warnings.filterwarnings("ignore", message="IProgress not found")
