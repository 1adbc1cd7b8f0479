"""Score labels against truth: metrics, boundary IoU, the evaluator, the CRF search and VOC's submission archive.

Reading order: `metrics` (one confusion matrix and its ratios), `boundary_iou`, `evaluator` (a model or a folder on a split).
"""
