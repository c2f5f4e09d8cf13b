"""The figures of a report, one file each; `style` has what they share."""
