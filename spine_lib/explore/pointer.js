const send = e => {
  const field = this.closest('.spine-viewer')?.querySelector('.spine-pointer input');
  if (!field) return;
  const box = this.getBoundingClientRect();
  const kind = e.type === 'pointerleave' ? 'leave' : e.buttons & 1 ? 'press' : 'hover';
  const shares = [(e.clientX - box.x) / box.width, (e.clientY - box.y) / box.height];
  field.value = [kind, 'NAME', ...shares.map(share => share.toFixed(5)), Math.round(e.timeStamp)]
    .join(' ');
  field.dispatchEvent(new Event('input', {bubbles: true}));
};
this.onpointermove = this.onpointerdown = this.onpointerleave = send;
