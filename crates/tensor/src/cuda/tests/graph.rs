//! Graphs and profiles.

use super::*;

#[test]
fn on_a_gpu_a_graph_repeats_its_work_on_new_values_and_refuses_the_host() -> Result<()> {
    let Some(gpu) = gpu("on_a_gpu_a_graph_repeats_its_work_on_new_values_and_refuses_the_host") else {
        return Ok(());
    };
    let n = 4096;
    let values = noise(n, 5);
    let (from, to) = (upload(&gpu, &values)?, gpu.alloc(4 * n)?);
    let twice = |gpu: &Arc<Gpu>| -> Result<()> {
        let between = gpu.alloc(4 * n)?;
        for (x, y) in [(&from, &between), (&between, &to)] {
            let args =
                [Arg::Span(x.ptr(), 4 * n as u64), Arg::Ptr(y.ptr()), Arg::I32(n as i32), Arg::F32(0.25)];
            gpu.launch(&TINY, DType::F32, "silu_add", [n as u32 / 512, 1, 1], [128, 1, 1], 0, &args)?;
        }
        Ok(())
    };
    twice(&gpu)?;
    let first = download(&gpu, to.ptr(), n)?;
    gpu.fill_zero(to.ptr(), 4 * n)?;
    let (graph, ()) = gpu.capture(|| twice(&gpu))?;
    assert_eq!(graph.nodes(), 2);
    assert_eq!(download(&gpu, to.ptr(), n)?, vec![0.0; n], "recording runs nothing");
    graph.launch()?;
    assert_eq!(download(&gpu, to.ptr(), n)?, first);
    let others: Vec<f32> = values.iter().map(|x| 3.0 * x).collect();
    gpu.upload(from.ptr(), &to_bytes(&others))?;
    graph.launch()?;
    let again = download(&gpu, to.ptr(), n)?;
    twice(&gpu)?;
    assert_eq!(again, download(&gpu, to.ptr(), n)?);

    for refused in [
        gpu.capture(|| gpu.synchronize()).map(|_| ()),
        gpu.capture(|| gpu.upload(from.ptr(), &[0; 4])).map(|_| ()),
        gpu.capture(|| download(&gpu, from.ptr(), 1)).map(|_| ()),
    ] {
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("graph is being recorded"), "{message}");
    }
    twice(&gpu)?;
    gpu.synchronize()
}

#[test]
fn on_a_gpu_a_profile_tells_every_piece_of_work_in_order() -> Result<()> {
    let Some(gpu) = gpu("on_a_gpu_a_profile_tells_every_piece_of_work_in_order") else {
        return Ok(());
    };
    let n = 512;
    let x = upload(&gpu, &noise(n, 6))?;
    let y = gpu.alloc(4 * n)?;
    assert!(gpu.stop_profile()?.is_empty(), "none was started");
    gpu.start_profile()?;
    gpu.fill_zero(y.ptr(), 4 * n)?;
    let args = [Arg::Span(x.ptr(), 4 * n as u64), Arg::Span(y.ptr(), 8), Arg::I32(n as i32), Arg::F32(0.25)];
    gpu.launch(&TINY, DType::F32, "silu_add", [1, 1, 1], [128, 1, 1], 0, &args)?;
    gpu.copy(y.ptr(), x.ptr(), 4 * n)?;
    let costs = gpu.stop_profile()?;
    let told: Vec<_> = costs.iter().map(|c| (c.work.name, c.work.detail.as_str(), c.work.bytes)).collect();
    let n = n as u64;
    assert_eq!(told, [("copies", "zero", 4 * n), ("tiny", "silu_add", 4 * n + 8), ("copies", "copy", 8 * n)]);
    // A piece may be shorter than the clock's tick.
    assert!(costs.iter().all(|cost| cost.ms >= 0.0), "{costs:?}");
    assert!(costs.iter().map(|cost| cost.ms).sum::<f64>() > 0.0, "{costs:?}");
    Ok(())
}
