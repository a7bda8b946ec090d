"""What a sweep is: planned, frozen in a manifest, trained run by run, on disk."""
