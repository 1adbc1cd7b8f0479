"""All families, in the order of the page."""

from __future__ import annotations

from .backbones import BACKBONE_ROWS, DEFORM_ROWS, EFFICIENTNET_ROWS, PART_ROWS, SENET_ROWS, XCEPTION_ROWS
from .deeplab import PLUS_ROWS, PSP_ROWS, V3_ROWS
from .deeplab_v1_v2 import V1_ROWS, V2_ROWS
from .fcn import FCN_ROWS
from .full_size import DECONVNET_ROWS, FRRN_ROWS
from .hypercolumns import HYPERCOLUMN_ROWS
from .parts import KERNEL_ROWS, LRN_ROWS
from .rows import Family
from .torchvision import TORCHVISION_ROWS
from .unet import UNET_ROWS

FAMILIES: tuple[Family, ...] = (
    FCN_ROWS,
    UNET_ROWS,
    DECONVNET_ROWS,
    HYPERCOLUMN_ROWS,
    FRRN_ROWS,
    V1_ROWS,
    V2_ROWS,
    V3_ROWS,
    PLUS_ROWS,
    PSP_ROWS,
    TORCHVISION_ROWS,
    KERNEL_ROWS,
    LRN_ROWS,
    BACKBONE_ROWS,
    SENET_ROWS,
    XCEPTION_ROWS,
    EFFICIENTNET_ROWS,
    PART_ROWS,
    DEFORM_ROWS,
)
