"""Image classification by transfer learning: the logic behind the numbered notebooks.

The rooms stand in the order in which an image passes them; each imports only from those before
it (a test holds that), and the files at the door from none:

    the door     files, versions, imports, section, settings (and those of heads, of networks
                 that are trained, of evaluation), recipe, columns, steps, colab, processes,
                 resuming, run, command, removal; `batch`, which runs the notebooks headless,
                 calls on all rooms
    data         layouts, inspection, copies, splits                             01, 02
    network      backbones, weights, preprocessing, pixels, augmentation         02, 03
    features     extraction and its engines                                      03
    training     cross-validation, heads, networks that are trained              04
    evaluation   scores, intervals, calibration, label errors, shortcuts,
                 Grad-CAM, ensembles, t-SNE, everything compared                 04 to 10
    pictures     charts, galleries, the report, the model card, the map          all
    serving      the saved model, predictions, ONNX, the web page                11
    dev          benches, publishing; no part of the product

Importing this package or a room loads nothing heavy; every module imports what it needs.
"""

import warnings

# Some libraries ask for notebook widgets, but saved widgets make a notebook invalid.
warnings.filterwarnings("ignore", message="IProgress not found")
