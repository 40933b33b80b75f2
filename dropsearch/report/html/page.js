// A frame that is shut off from its origin, as MLflow shows this page in, does not follow links within it.
if (window !== window.top) {
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    const target = link && document.getElementById(link.getAttribute("href").slice(1));
    if (target) {
      event.preventDefault();
      target.scrollIntoView();
    }
  });
}
