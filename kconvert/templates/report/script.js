// Shows one section at a time; without this script they stand below each other.
const tabs = [...document.querySelectorAll("[role=tab]")];
function show(tab, focus) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    document.getElementById(other.getAttribute("aria-controls")).classList.toggle("shown", chosen);
  }
  if (focus) tab.focus();
}
tabs.forEach((tab, index) => {
  tab.addEventListener("click", () => {
    show(tab, false);
    history.replaceState(null, "", "#" + tab.getAttribute("aria-controls"));
    scrollTo(0, 0);
  });
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) show(tabs[(index + step + tabs.length) % tabs.length], true);
  });
});
document.body.classList.add("tabs");
show(tabs.find((tab) => "#" + tab.getAttribute("aria-controls") === location.hash) || tabs[0], false);
