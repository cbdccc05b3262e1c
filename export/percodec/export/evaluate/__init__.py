"""What bundles, networks and other codecs reach on a data set, as tables, plots and pages."""
