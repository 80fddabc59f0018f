"""Telling others how a run goes: TensorBoard, Weights & Biases, MLflow, trackio. All is read from the run store."""
