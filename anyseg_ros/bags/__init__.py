"""Reading recorded bags, damaged ones too, and which topic of a bag is which sensor."""
