"""Parts of a run in processes of their own, on Ray: started, called, ended. The only room that imports ray."""
