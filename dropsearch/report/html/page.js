// What is wider than the page says so, until it has been scrolled to its end.
const mark = (part) => part.classList.toggle("more", part.scrollWidth - part.clientWidth - part.scrollLeft > 4);
const parts = [...document.querySelectorAll(".wide")];
parts.forEach((part) => part.addEventListener("scroll", () => mark(part), { passive: true }));
addEventListener("resize", () => parts.forEach(mark));
document.querySelectorAll("details").forEach((fold) => fold.addEventListener("toggle", () => parts.forEach(mark)));
parts.forEach(mark);

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
