"""`anyseg watch`: a page in the browser that shows what segmentation_node sees and says."""
