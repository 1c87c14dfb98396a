"""Tune image classifiers: made for detecting pneumonia in chest X-rays."""
