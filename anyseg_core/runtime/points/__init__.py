"""What planners take of a mask: labelled points, obstacles among them, and a map of where one can drive."""
