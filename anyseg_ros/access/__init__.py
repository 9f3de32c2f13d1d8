"""Who may do what on a vehicle's topics and services: an SROS2 policy made from what the nodes really do."""
