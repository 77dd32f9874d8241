"""Folders of pictures as data sets: classes, masks, pairs."""
