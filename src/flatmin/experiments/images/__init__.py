"""Table 1 and figure 7: networks trained on images, as reported and under control."""
