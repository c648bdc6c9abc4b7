"""One quantizer per file; those of summarization and translation, and those of images, have a base they share."""
