"""From a model and a picture to a label map."""
