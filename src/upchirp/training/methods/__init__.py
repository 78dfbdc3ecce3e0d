"""What a model is trained to do beside telling labels: one file for each method, and the choice by the settings."""
