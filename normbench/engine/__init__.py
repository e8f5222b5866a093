"""Who runs what, where: costs, devices, and the runs themselves."""
