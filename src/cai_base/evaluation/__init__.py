"""Evaluation: every arm answers the evaluation prompts, a judge scores the answers, statistics sum them up."""
