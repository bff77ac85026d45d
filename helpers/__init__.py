"""Image classification by transfer learning: the logic behind the numbered notebooks.

Importing this package loads nothing heavy; every module imports what it needs. The modules
form one line, each importing only from those before it:

    errors, files, colab, recipe, run, demo, sources, inspection, splits, images, backbones,
    features, extraction, heads, projection, evaluation, charts, galleries, report

`batch` runs the notebooks headless; `publish` puts a run's outputs into the notebooks that are
committed.
"""
