// Texts whose contrast with their background is below 4.5 (WCAG 2.2, level AA).
[...document.querySelectorAll('body *')].flatMap((element) => {
  const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  const style = getComputedStyle(element);
  if (!own || !element.checkVisibility() || element.closest('svg, .unseen, script, noscript')) return [];
  const channels = (color) => color.match(/[\d.]+/g).map(Number);
  const luminance = (color) => {
    const [r, g, b] = channels(color).map((channel) => channel / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let behind = element;
  while (behind && channels(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
  const back = getComputedStyle(behind ?? document.documentElement).backgroundColor;
  const [low, high] = [luminance(style.color), luminance(back)].sort((a, b) => a - b);
  const contrast = (high + 0.05) / (low + 0.05);
  return contrast < 4.5 ? [`${element.textContent.slice(0, 30)} (${style.color} on ${back}: ${contrast.toFixed(2)})`] : [];
});
