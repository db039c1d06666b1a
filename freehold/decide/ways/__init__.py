"""Every way to do the work, sized, judged, costed and ranked."""
